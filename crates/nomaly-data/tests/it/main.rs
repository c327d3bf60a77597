//! Data sets from the user's perspective: folders and files on disk in, samples and batches out.

mod fixture;
mod folders;
mod hostile;
mod loading;
mod named;
mod tables;
mod written_tables;
