//! The crate as its users see it: downloads from a small server on this machine, and archives made on the spot.

mod archives;
mod downloads;
#[cfg(unix)]
mod packages;
mod server;
