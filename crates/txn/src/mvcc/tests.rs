//! Bytes as TiKV has them, and what becomes of them when they are damaged; the reader on engines
//! that are filled by hand.

mod bytes_on_disk;
mod oldest;
mod reads;
