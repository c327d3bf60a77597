//! The numeric core of nomaly: convolution plans, pooling, whole networks, nearest neighbours
#![deny(unsafe_op_in_unsafe_fn)]
#![deny(missing_docs)]
