//! Tests of the public interface: downloads from a small local server, and generated archives.

mod archives;
mod downloads;
#[cfg(unix)]
mod packages;
mod server;
