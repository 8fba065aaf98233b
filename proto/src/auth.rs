//! What nodes and people say to control about logins and users, and what it answers. Passwords and tokens
//! are in these bodies and nowhere else, so none of them shows itself in `{:?}`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::access::{Role, User};
use crate::id::FamilyId;

/// How a token of ours is presented: the `token_type` of a [`Grant`].
pub const TOKEN_TYPE: &str = "Bearer";

/// Shortest password.
pub const PASSWORD_BYTES_MIN: usize = 8;

/// Longest password; a longer one is refused before any work is done with it.
pub const PASSWORD_BYTES_MAX: usize = 1_024;

/// Somebody wants to log in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginRequest {
    /// Who it is, or says to be.
    pub email: String,
    /// What only that one knows.
    pub password: String,
    /// Where it comes from, as a node sees it. Without it only the account is throttled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Somebody wants a new access token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshRequest {
    /// The newest refresh token of the login.
    pub refresh_token: String,
}

/// A login is to end. One of the two names it; it is no error when there is no such login any more.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogoutRequest {
    /// A refresh token of the login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// The login itself: the `sid` of an access token that was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<FamilyId>,
}

/// Answers a login and a refresh.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Lets the user in for `expires_in`: a JWT with [`AccessClaims`](crate::access::AccessClaims).
    pub access_token: String,
    /// Good for one refresh.
    pub refresh_token: String,
    /// [`TOKEN_TYPE`].
    pub token_type: String,
    /// How long the access token is good, in seconds.
    pub expires_in: u64,
    /// Who it is.
    pub user: User,
}

/// Answers a logout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedOut {
    /// Always true: what failed is a problem document.
    pub success: bool,
}

/// All users, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserList {
    /// The users.
    pub users: Vec<User>,
}

/// A user is to be made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewUserRequest {
    /// The name to log in with; case does not matter.
    pub email: String,
    /// The name for people.
    pub full_name: String,
    /// What the user may do.
    pub role: Role,
    /// What the user logs in with.
    pub password: String,
}

/// A user is to have another role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRequest {
    /// The role.
    pub role: Role,
}

/// A user is to have another password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordRequest {
    /// The password.
    pub password: String,
}

/// Writes a type whose members are not for eyes.
macro_rules! hidden {
    ($($name:ident),+) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    )+};
}
hidden!(LoginRequest, RefreshRequest, LogoutRequest, Grant, NewUserRequest, PasswordRequest);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::UserId;
    use crate::timestamp::Timestamp;

    #[test]
    fn what_is_secret_does_not_show_itself() {
        let login = LoginRequest { email: "a@b".to_owned(), password: "hunter22".to_owned(), address: None };
        let user = User {
            id: UserId::new("u1").unwrap(),
            email: "a@b".to_owned(),
            full_name: "Ada".to_owned(),
            role: Role::Viewer,
            is_active: true,
            created_at: Timestamp::default(),
            last_login: None,
        };
        let grant = Grant {
            access_token: "hunter22".to_owned(),
            refresh_token: "hunter22".to_owned(),
            token_type: TOKEN_TYPE.to_owned(),
            expires_in: 600,
            user,
        };
        let logout = LogoutRequest { refresh_token: Some("hunter22".to_owned()), family: None };
        let shown = format!("{login:?} {grant:?} {logout:?}");
        assert!(shown.contains("Grant(…)") && !shown.contains("hunter22"), "{shown}");
    }

    #[test]
    fn an_address_and_members_that_are_unknown_may_be_left_out_or_added() {
        let login: LoginRequest =
            serde_json::from_str(r#"{"email":"a@b","password":"x","device":"phone"}"#).unwrap();
        assert_eq!(login.address, None);
        assert_eq!(serde_json::to_string(&login).unwrap(), r#"{"email":"a@b","password":"x"}"#);
        let logout: LogoutRequest = serde_json::from_str("{}").unwrap();
        assert_eq!(logout, LogoutRequest::default());
    }
}
