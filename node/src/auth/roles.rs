//! The one table of roles: what each may do, and which subscriptions are not for everybody.

use hiveops_proto::access::Role;

/// Something that not every role may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permission {
    /// Join the subscription `alerts`.
    ReadAlerts,
    /// Change agents and tasks.
    Write,
    /// Publish in the name of the node.
    Broadcast,
    /// End somebody's session.
    Disconnect,
    /// Let a node go away.
    Drain,
    /// See where an update went, and whether all that was due adds up.
    Trace,
}

/// Subscriptions that need more than to be let in.
const RESTRICTED: [(&str, Permission); 1] = [("alerts", Permission::ReadAlerts)];

const ADMIN: &[Permission] = &[
    Permission::ReadAlerts,
    Permission::Write,
    Permission::Broadcast,
    Permission::Disconnect,
    Permission::Drain,
    Permission::Trace,
];

/// The table.
fn permissions(role: Role) -> &'static [Permission] {
    match role {
        Role::SuperAdmin | Role::EnterpriseAdmin => ADMIN,
        Role::Developer => &[Permission::Write, Permission::Trace],
        Role::Operator => &[Permission::Write],
        Role::Viewer => &[],
    }
}

pub(super) fn may(role: Role, permission: Permission) -> bool {
    permissions(role).contains(&permission)
}

pub(super) fn may_join(role: Role, subscription: &str) -> bool {
    RESTRICTED.iter().filter(|(name, _)| *name == subscription).all(|(_, needed)| may(role, *needed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table as the documentation has it.
    #[test]
    fn each_role_may_do_what_the_table_says_and_no_more() {
        use Permission::{Broadcast, Disconnect, Drain, ReadAlerts, Trace, Write};
        let all = [ReadAlerts, Write, Broadcast, Disconnect, Drain, Trace];
        for (role, allowed) in [
            (Role::SuperAdmin, "111111"),
            (Role::EnterpriseAdmin, "111111"),
            (Role::Developer, "010001"),
            (Role::Operator, "010000"),
            (Role::Viewer, "000000"),
        ] {
            let found: String =
                all.iter().map(|permission| if may(role, *permission) { '1' } else { '0' }).collect();
            assert_eq!(found, allowed, "{role}");
        }
    }

    #[test]
    fn alerts_are_for_administrators_and_everything_else_is_for_all() {
        for role in Role::ALL {
            let admin = matches!(role, Role::SuperAdmin | Role::EnterpriseAdmin);
            assert_eq!(may_join(*role, "alerts"), admin, "{role}");
            for open in ["agents", "coordination", "project_index", "system", "tasks", "alerts_of_mine"] {
                assert!(may_join(*role, open), "{role} {open}");
            }
        }
    }
}
