//! Where a password comes from.

use std::io::{IsTerminal as _, Read, stdin};
use std::path::PathBuf;

use anyhow::Context as _;
use hiveops_proto::auth::{PASSWORD_BYTES_MAX, PASSWORD_BYTES_MIN};

use super::wrong;

/// More than any password with the end of its line: what is longer is refused without being read.
const READ_MAX: u64 = PASSWORD_BYTES_MAX as u64 + 3;

/// A file, or else standard input, or the person in front of the terminal.
#[derive(clap::Args)]
pub(super) struct PasswordArgs {
    /// File that holds the password; without it the password is asked for, or is the first line of standard input
    /// when that is no terminal
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl PasswordArgs {
    /// Reads it. It is judged here too, so that nobody waits for an answer that is known.
    pub(super) fn read(self) -> anyhow::Result<String> {
        let text = match self.password_file {
            Some(path) => {
                let place = format!("`{}` (--password-file) cannot be read", path.display());
                let file = std::fs::File::open(path).map_err(|error| wrong(format!("{place}: {error}")))?;
                first_line(file).with_context(|| place)?
            }
            None if stdin().is_terminal() => asked()?,
            None => first_line(stdin().lock()).context("standard input cannot be read")?,
        };
        match text.len() {
            0 => Err(wrong("no password was given; it is the first line of standard input".to_owned())),
            PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX => Ok(text),
            _ => Err(wrong(format!("a password has {PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX} bytes"))),
        }
    }
}

fn asked() -> anyhow::Result<String> {
    let ask = |prompt| rpassword::prompt_password(prompt).context("the terminal cannot be asked");
    let password = ask("Password: ")?;
    match ask("Again: ")? == password {
        true => Ok(password),
        false => Err(wrong("the two passwords differ".to_owned())),
    }
}

fn first_line(from: impl Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    from.take(READ_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("the password is not UTF-8".to_owned()))?;
    let line = text.split('\n').next().unwrap_or_default();
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_without_its_end() {
        for text in ["correct horse", "correct horse\n", "correct horse\r\n", "correct horse\nmore\n"] {
            assert_eq!(first_line(text.as_bytes()).unwrap(), "correct horse");
        }
        let long = "x".repeat(100_000);
        assert_eq!(first_line(long.as_bytes()).unwrap().len() as u64, READ_MAX);
        assert!(first_line(&b"\xff\xfe"[..]).unwrap_err().to_string().contains("not UTF-8"));
    }
}
