//! The checkers of transactional histories against histories that are known to be good or bad.

mod bank;
mod lists;
mod random;
