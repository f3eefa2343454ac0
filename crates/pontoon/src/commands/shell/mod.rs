//! `pontoon shell`: reads and writes by hand.
//!
//! ```text
//!   line ── escape ──▶ words ── command ──▶ Command ── execute ──▶ client, output
//! ```
//!
//! Keys are raw, but between `begin` and `commit` or `rollback` they are those of the transaction;
//! the prompt says which. In a cluster of API version 1 raw keys and those of transactions share
//! one key space and should not be mixed; in version 2 they lie apart.
//!
//! With `-e` it carries out the commands given and ends; otherwise it reads lines, with history and
//! completion of command names on a terminal, and goes on after an error.

mod command;
mod escape;
mod execute;
mod transactions;

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use client::ApiVersion;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Context, Editor};

pub use command::{COMMANDS, Command, Group, Usage, find, read};
pub use escape::{Word, parse_hex, quote, split, to_hex};

use super::CommandError;
use super::flags::api_version;
use crate::remote;
use execute::{Next, Session, output_error};

/// Lines of history that are kept.
const HISTORY_MAX: usize = 1000;

/// Flags of `pontoon shell`.
#[derive(Clone, Debug, clap::Args)]
pub struct ShellArgs {
    /// Address of the server (of its placement driver).
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:2379")]
    pub addr: String,
    /// Version of the API that the server was started with.
    #[arg(long, value_name = "VERSION", default_value = "1", value_parser = api_version)]
    pub api_version: ApiVersion,
    /// Carry out this command and end; may be given several times.
    #[arg(short = 'e', long = "execute", value_name = "COMMAND", allow_hyphen_values = true)]
    pub execute: Vec<String>,
    /// Read and write keys and values as hex digits.
    #[arg(long)]
    pub hex: bool,
}

/// Runs the shell to its end.
pub fn run(args: &ShellArgs) -> Result<(), CommandError> {
    // Lines given are checked before anything is sent: a mistake in the last must not leave half
    // done.
    let lines = args.execute.iter().map(|line| command::read(line, args.hex));
    let commands: Vec<_> = lines.collect::<Result<_, _>>().map_err(CommandError::new)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|e| CommandError::new(format!("cannot start a thread: {e}")))?;
    let db = runtime.block_on(remote::connect(&args.addr, args.api_version, 1))?;
    let mut out = io::stdout().lock();
    let (db, api_version, hex) = (&db, args.api_version, args.hex);
    let mut session = Session { db, txn: None, api_version, hex, out: &mut out };
    if args.execute.is_empty() {
        return interact(&runtime, &mut session, args);
    }
    let outcome = execute_all(&runtime, &mut session, commands.into_iter().flatten());
    let ended = runtime.block_on(session.end());
    outcome.and(ended)
}

fn execute_all(
    runtime: &tokio::runtime::Runtime,
    session: &mut Session<'_>,
    commands: impl Iterator<Item = Command>,
) -> Result<(), CommandError> {
    for command in commands {
        if runtime.block_on(session.execute(command))? == Next::End {
            break;
        }
    }
    session.out.flush().map_err(|e| output_error(&e))
}

fn interact(
    runtime: &tokio::runtime::Runtime,
    session: &mut Session<'_>,
    args: &ShellArgs,
) -> Result<(), CommandError> {
    let terminal = io::stdin().is_terminal();
    let mut editor = open_editor().map_err(CommandError::new)?;
    let history = history_file();
    if terminal {
        // The first time there is none.
        let _ = history.as_ref().map(|path| editor.load_history(path));
        let cluster = session.db.link().placement().cluster_id();
        println_to(
            session,
            &format!("cluster {cluster} at {}; help lists the commands", args.addr),
        )?;
    }
    let mut failed = false;
    loop {
        let line = match editor.readline(&session.prompt()) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(CommandError::new(format!("cannot read a line: {error}"))),
        };
        if terminal && !line.trim().is_empty() {
            // A line that is not remembered is no reason to stop.
            let _ = editor.add_history_entry(&line);
        }
        match one_line(runtime, session, &line, args.hex) {
            Ok(Next::Line) => {}
            Ok(Next::End) => break,
            Err(error) => {
                failed = true;
                eprintln!("error: {error}");
            }
        }
    }
    if let (true, Some(path)) = (terminal, history) {
        save_history(&mut editor, &path);
    }
    runtime.block_on(session.end())?;
    match failed && !terminal {
        true => Err(CommandError::new("not all lines could be carried out")),
        false => Ok(()),
    }
}

fn one_line(
    runtime: &tokio::runtime::Runtime,
    session: &mut Session<'_>,
    line: &str,
    hex: bool,
) -> Result<Next, CommandError> {
    let Some(command) = command::read(line, hex).map_err(CommandError::new)? else {
        return Ok(Next::Line);
    };
    let next = runtime.block_on(session.execute(command))?;
    session.out.flush().map_err(|e| output_error(&e))?;
    Ok(next)
}

fn println_to(session: &mut Session<'_>, line: &str) -> Result<(), CommandError> {
    writeln!(session.out, "{line}").map_err(|e| output_error(&e))
}

fn open_editor() -> rustyline::Result<Editor<CommandNames, FileHistory>> {
    let config = rustyline::Config::builder().max_history_size(HISTORY_MAX)?.build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(CommandNames));
    Ok(editor)
}

/// `pontoon/history` in the user's folder of states.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    Some(state.or_else(home)?.join("pontoon/history"))
}

fn save_history(editor: &mut Editor<CommandNames, FileHistory>, path: &std::path::Path) {
    let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    if let Err(error) = folder.map_err(ReadlineError::from).and_then(|()| editor.save_history(path))
    {
        eprintln!("history not saved in {}: {error}", path.display());
    }
}

/// Completes the names of commands.
struct CommandNames;

impl Completer for CommandNames {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = &line[..position];
        if typed.contains(char::is_whitespace) {
            return Ok((position, Vec::new()));
        }
        let names = COMMANDS.iter().map(|row| row.name).filter(|name| name.starts_with(typed));
        Ok((0, names.map(|name| format!("{name} ")).collect()))
    }
}

impl Hinter for CommandNames {
    type Hint = String;
}

impl Highlighter for CommandNames {}

impl Validator for CommandNames {}

impl rustyline::Helper for CommandNames {}
