//! The table of a replica's settings: name, environment variable, default and meaning of each.

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The name; also the key in the file and, with dashes, the flag.
    pub name: &'static str,
    /// The environment variable.
    pub env: &'static str,
    /// What a value looks like.
    pub placeholder: &'static str,
    /// The value when nobody says otherwise; empty when there is none.
    pub default: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// Never shown, and may be read from a file (`*_FILE`).
    pub secret: bool,
}

/// Every setting, in the order in which people should read them.
pub fn settings() -> &'static [Setting] {
    TABLE
}

const TABLE: &[Setting] = &[
    Setting {
        name: "id",
        env: "HIVEOPS_CONTROL_ID",
        placeholder: "NUMBER",
        default: "",
        doc: "Number of this replica in its cluster, from 1; it is for ever.",
        secret: false,
    },
    Setting {
        name: "listen",
        env: "HIVEOPS_CONTROL_LISTEN",
        placeholder: "ADDRESS:PORT",
        default: "127.0.0.1:7100",
        doc: "Address of the listener for nodes, people and other replicas.",
        secret: false,
    },
    Setting {
        name: "peers",
        env: "HIVEOPS_CONTROL_PEERS",
        placeholder: "ID=HOST:PORT,…",
        default: "",
        doc: "The replicas that make the cluster, this one included, and where they reach each other.",
        secret: false,
    },
    Setting {
        name: "routes",
        env: "HIVEOPS_CONTROL_ROUTES",
        placeholder: "ID=HOST:PORT,…",
        default: "",
        doc: "Other addresses for some of the peers, as seen from this replica: a tunnel or a proxy.",
        secret: false,
    },
    Setting {
        name: "data_dir",
        env: "HIVEOPS_CONTROL_DATA_DIR",
        placeholder: "DIRECTORY",
        default: "",
        doc: "Where the replica keeps its log, its vote and its snapshots.",
        secret: false,
    },
    Setting {
        name: "snapshot_entries",
        env: "HIVEOPS_CONTROL_SNAPSHOT_ENTRIES",
        placeholder: "NUMBER",
        default: "5000",
        doc: "Log entries between two snapshots; a fifth of it is kept behind each. A start applies as many at most.",
        secret: false,
    },
    Setting {
        name: "access_token_seconds",
        env: "HIVEOPS_CONTROL_ACCESS_TOKEN_SECONDS",
        placeholder: "SECONDS",
        default: "600",
        doc: "How long an access token is good, 10 to 600. Shorter ones are worth less to a thief, and a refresh each to the leader.",
        secret: false,
    },
    Setting {
        name: "key_publish_seconds",
        env: "HIVEOPS_CONTROL_KEY_PUBLISH_SECONDS",
        placeholder: "SECONDS",
        default: "60",
        doc: "From publishing a new signing key to signing with it, 2 to 3600. Below 60, nodes and caches that are slow may not know it yet.",
        secret: false,
    },
    Setting {
        name: "key_retire_seconds",
        env: "HIVEOPS_CONTROL_KEY_RETIRE_SECONDS",
        placeholder: "SECONDS",
        default: "660",
        doc: "From the last signature of an old key to its end, access_token_seconds to 86400. Clocks that differ need 60 more than that.",
        secret: false,
    },
    Setting {
        name: "cluster_secret",
        env: "HIVEOPS_CLUSTER_SECRET",
        placeholder: "SECRET",
        default: "",
        doc: "What nodes, people and other replicas must know to talk to this one; required beyond loopback.",
        secret: true,
    },
    Setting {
        name: "bootstrap_admin_email",
        env: "HIVEOPS_BOOTSTRAP_ADMIN_EMAIL",
        placeholder: "EMAIL",
        default: "",
        doc: "Email of the first user, a super_admin, who is made when there is no user; afterwards it is ignored.",
        secret: false,
    },
    Setting {
        name: "bootstrap_admin_password",
        env: "HIVEOPS_BOOTSTRAP_ADMIN_PASSWORD",
        placeholder: "PASSWORD",
        default: "",
        doc: "Password of the first user, 8 to 1,024 bytes. A flag's value can be seen in the list of processes: prefer the file.",
        secret: true,
    },
];

impl Setting {
    /// The flag without its dashes.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }
}
