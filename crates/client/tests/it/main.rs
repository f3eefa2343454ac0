//! The client against a script: which requests it sends, and what it makes of the answers.

mod commits;
mod pessimistic;
mod reads;
mod script;
