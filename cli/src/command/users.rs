//! `hiveops users`: who may log in, and as what. Passwords come from the terminal, from standard input or from
//! a file, and never from an argument, which everybody on the machine could read.

mod password;

use std::process::ExitCode;

use hiveops_proto::access::{Role, User};
use hiveops_proto::path::{
    CONTROL_USER_DISABLE, CONTROL_USER_ENABLE, CONTROL_USER_PASSWORD, CONTROL_USER_ROLE, CONTROL_USERS,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::control_api::{ControlApi, ControlTarget};
use crate::output::{self, Usage};
use crate::serve::small_runtime;
use password::PasswordArgs;

/// What to do with the users.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a user
    Add {
        /// Email address, the name to log in with
        email: String,
        /// Name for people; the email when left out
        #[arg(long)]
        name: Option<String>,
        /// What the user may do: super_admin, enterprise_admin, developer, operator or viewer
        #[arg(long, value_parser = role)]
        role: Role,
        #[command(flatten)]
        password: PasswordArgs,
        #[command(flatten)]
        target: ControlTarget,
    },
    /// Show all users
    List {
        /// Print the control plane's answer as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: ControlTarget,
    },
    /// Give a user another role: open sockets follow within seconds
    SetRole {
        #[command(flatten)]
        whom: Whom,
        /// The role: super_admin, enterprise_admin, developer, operator or viewer
        #[arg(value_parser = role)]
        role: Role,
        #[command(flatten)]
        target: ControlTarget,
    },
    /// Do not let a user in any more: logins end, open sockets are closed within seconds
    Disable {
        #[command(flatten)]
        whom: Whom,
        #[command(flatten)]
        target: ControlTarget,
    },
    /// Let a user in again
    Enable {
        #[command(flatten)]
        whom: Whom,
        #[command(flatten)]
        target: ControlTarget,
    },
    /// Give a user another password: logins end
    Passwd {
        #[command(flatten)]
        whom: Whom,
        #[command(flatten)]
        password: PasswordArgs,
        #[command(flatten)]
        target: ControlTarget,
    },
}

/// Which user.
#[derive(clap::Args)]
struct Whom {
    /// Email address or id of the user
    #[arg(value_name = "EMAIL")]
    user: String,
}

fn role(text: &str) -> Result<Role, String> {
    let found = Role::ALL.iter().copied().find(|role| role.as_str() == text);
    let roles: Vec<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
    found.ok_or_else(|| format!("there is no such role; there are {}", roles.join(", ")))
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    small_runtime()?.block_on(async {
        match args.command {
            Command::Add { email, name, role, password, target } => {
                let api = ControlApi::new(target)?;
                add(&api, &email, name.as_deref(), role, password).await
            }
            Command::List { json, target } => list(&ControlApi::new(target)?, json).await,
            Command::SetRole { whom, role, target } => {
                let body = json!({"role": role});
                let user = change(&ControlApi::new(target)?, &whom, CONTROL_USER_ROLE, body).await?;
                said(format_args!("{} is {} now", user.email, user.role))
            }
            Command::Disable { whom, target } => {
                let user = change(&ControlApi::new(target)?, &whom, CONTROL_USER_DISABLE, json!({})).await?;
                said(format_args!("{} may not log in any more", user.email))
            }
            Command::Enable { whom, target } => {
                let user = change(&ControlApi::new(target)?, &whom, CONTROL_USER_ENABLE, json!({})).await?;
                said(format_args!("{} may log in again", user.email))
            }
            Command::Passwd { whom, password, target } => {
                let api = ControlApi::new(target)?;
                let body = json!({"password": password.read()?});
                let user = change(&api, &whom, CONTROL_USER_PASSWORD, body).await?;
                said(format_args!("{} has another password, and has to log in anew", user.email))
            }
        }
    })
}

async fn add(
    api: &ControlApi,
    email: &str,
    name: Option<&str>,
    role: Role,
    password: PasswordArgs,
) -> anyhow::Result<ExitCode> {
    let password = password.read()?;
    let full_name = name.unwrap_or(email);
    let body = json!({"email": email, "full_name": full_name, "role": role, "password": password});
    let user: User = serde_json::from_value(api.call(Method::POST, CONTROL_USERS, Some(body)).await?)?;
    said(format_args!("user {} ({}) was made, with the role {}", user.email, user.id, user.role))
}

async fn list(api: &ControlApi, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        output::json(&api.call(Method::GET, CONTROL_USERS, None).await?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let users = users(api).await?;
    let width = users.iter().map(|user| user.email.chars().count()).max().unwrap_or(0);
    for user in &users {
        output::line(row(user, width))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(user: &User, width: usize) -> String {
    let state = if user.is_active { "active" } else { "disabled" };
    let seen = user.last_login.map_or("never logged in".to_owned(), |at| format!("last login {at}"));
    format!("{:width$}  {:<16} {state:<8}  {}  {seen}", user.email, user.role.as_str(), user.id)
}

/// All of them.
pub(crate) async fn users(api: &ControlApi) -> anyhow::Result<Vec<User>> {
    let mut answer = api.call(Method::GET, CONTROL_USERS, None).await?;
    Ok(serde_json::from_value(answer["users"].take())?)
}

/// Finds the user and makes the change; the user afterwards.
async fn change(api: &ControlApi, whom: &Whom, path: &str, body: Value) -> anyhow::Result<User> {
    let named = whom.user.to_lowercase();
    let users = users(api).await?;
    let found = users.iter().find(|user| user.email == named || user.id.as_str() == whom.user);
    let Some(user) = found else {
        anyhow::bail!("there is no user `{}`; `hiveops users list` shows all", whom.user);
    };
    let path = path.replace("{id}", user.id.as_str());
    Ok(serde_json::from_value(api.call(Method::POST, &path, Some(body)).await?)?)
}

fn said(what: std::fmt::Arguments<'_>) -> anyhow::Result<ExitCode> {
    output::line(what)?;
    Ok(ExitCode::SUCCESS)
}

/// Whatever is wrong with what was given.
fn wrong(problem: String) -> anyhow::Error {
    Usage(problem).into()
}

#[cfg(test)]
mod tests {
    use hiveops_proto::Timestamp;
    use hiveops_proto::id::UserId;

    use super::*;

    #[test]
    fn a_role_is_one_of_the_five() {
        assert_eq!(role("enterprise_admin"), Ok(Role::EnterpriseAdmin));
        assert!(role("root").unwrap_err().contains("super_admin, enterprise_admin"));
    }

    #[test]
    fn a_row_says_who_it_is_and_whether_it_may_log_in() {
        let user = User {
            id: UserId::new("u1").unwrap(),
            email: "ada@example.org".to_owned(),
            full_name: "Ada".to_owned(),
            role: Role::Viewer,
            is_active: false,
            created_at: Timestamp::default(),
            last_login: None,
        };
        let words: Vec<String> = row(&user, 20).split_whitespace().map(str::to_owned).collect();
        assert_eq!(words.join(" "), "ada@example.org viewer disabled u1 never logged in");
    }
}
