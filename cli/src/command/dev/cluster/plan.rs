//! Which parts a local cluster has, and what each is told.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, Result};
use hiveops_node::config::{Kind as SettingKind, Loaded, Secret, Setting, Shown};
use hiveops_proto::control::Source;

use super::nats;
use super::part::{Kind, Part};
use super::ports::Ports;
use crate::settings::SettingArgs;

/// Of a node's settings, those of which each part gets its own.
const OWN: [&str; 2] = ["listen", "data_dir"];
/// Of a node's settings, those that a replica has too, beside the limits.
const SHARED: [&str; 3] = ["contract", "log", "log_format"];

/// The parts, none of them started.
pub(super) struct Plan {
    pub(super) parts: Vec<Part>,
}

/// What is the same for all parts.
struct Common<'a> {
    directory: PathBuf,
    program: PathBuf,
    settings: &'a SettingArgs,
    loaded: &'a Loaded,
}

impl Plan {
    /// Without NATS when the nodes are told of another bus that they share.
    pub(super) fn new(
        (nodes, controls): (u8, u8),
        settings: &SettingArgs,
        loaded: &Loaded,
        directory: &Path,
    ) -> Result<Self> {
        let directory = std::path::absolute(directory).context("the data directory has no absolute name")?;
        let nats = if loaded.config.bus.is_shared() { None } else { Some(nats::find()?) };
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {} (HIVEOPS_DATA_DIR)", directory.display()))?;
        let program = std::env::current_exe().context("this program cannot be found again")?;
        let common = Common { directory, program, settings, loaded };
        let mut ports = Ports::of(&common.directory)?;
        let mut parts = Vec::new();
        let mut bus = None;
        if let Some(program) = nats {
            let port = ports.give("nats")?;
            let args = nats::args(port, &common.directory.join("nats"));
            parts.push(Part { program, ..common.part(Kind::Nats, "nats".to_owned(), port, args) });
            bus = Some(format!("nats://127.0.0.1:{port}"));
        }
        let replicas = (1..=controls).map(|id| Ok((id, ports.give(&format!("control-{id}"))?)));
        let replicas = replicas.collect::<Result<Vec<(u8, u16)>>>()?;
        let urls = replicas.iter().map(|(_, port)| format!("http://127.0.0.1:{port}"));
        let urls = urls.collect::<Vec<_>>().join(",");
        let peers = replicas.iter().map(|(id, port)| format!("{id}=127.0.0.1:{port}"));
        let peers = peers.collect::<Vec<_>>().join(",");
        parts.extend(replicas.iter().map(|(id, port)| common.replica(*id, *port, &peers)));
        for number in 1..=nodes {
            let port = ports.give(&format!("node-{number}"))?;
            parts.push(common.node(number, port, &urls, bus.as_deref()));
        }
        ports.keep()?;
        Ok(Self { parts })
    }

    pub(super) fn addresses(&self, kind: Kind) -> Vec<SocketAddr> {
        let parts = self.parts.iter().filter(|part| part.kind == kind);
        parts.map(|part| (Ipv4Addr::LOCALHOST, part.port).into()).collect()
    }
}

impl Common<'_> {
    fn part(&self, kind: Kind, name: String, port: u16, args: Vec<String>) -> Part {
        Part {
            kind,
            program: self.program.clone(),
            args,
            env: Vec::new(),
            port,
            data: self.directory.join(&name),
            log: self.directory.join(format!("{name}.log")),
            name,
            pid: Rc::new(Cell::new(0)),
        }
    }

    fn replica(&self, id: u8, port: u16, peers: &str) -> Part {
        let name = format!("control-{id}");
        let data = self.directory.join(&name);
        let mut args = vec!["control".to_owned()];
        args.push(format!("--id={id}"));
        args.push(format!("--listen=127.0.0.1:{port}"));
        args.push(format!("--peers={peers}"));
        args.push(format!("--data-dir={}", data.display()));
        // It knows neither a node's file nor its profile, so that what follows from them is told it.
        args.extend(
            self.loaded
                .shown
                .iter()
                .filter(|row| is_for_replicas(row))
                .map(|row| flag(row.setting, &row.value)),
        );
        let secret = self.loaded.config.cluster_secret.as_ref().map(Secret::expose).map(str::to_owned);
        let env = vec![
            ("HIVEOPS_CONFIG", None),
            ("HIVEOPS_CLUSTER_SECRET_FILE", None),
            ("HIVEOPS_CLUSTER_SECRET", secret),
        ];
        Part { env, ..self.part(Kind::Control, name, port, args) }
    }

    /// With the flags that this process was given; the environment and the file it reads by itself.
    fn node(&self, number: u8, port: u16, controls: &str, bus: Option<&str>) -> Part {
        let name = format!("node-{number}");
        let data = self.directory.join(&name);
        let mut args = vec!["node".to_owned()];
        args.push(format!("--node-id={name}"));
        args.push(format!("--listen=127.0.0.1:{port}"));
        args.push(format!("--control={controls}"));
        args.push(format!("--data-dir={}", data.display()));
        args.extend(bus.map(|bus| format!("--bus={bus}")));
        let flags = self.settings.flags().iter();
        let flags =
            flags.filter(|(name, _)| !OWN.contains(&name.as_str()) && (*name != "bus" || bus.is_none()));
        args.extend(flags.map(|(name, value)| format!("--{}={value}", name.replace('_', "-"))));
        self.part(Kind::Node, name, port, args)
    }
}

/// The environment they have by inheritance.
fn is_for_replicas(row: &Shown) -> bool {
    match (row.setting.kind, row.source) {
        (_, Source::Env) => false,
        // A profile changes some.
        (SettingKind::Limit, Source::Default) => row.value != row.setting.default,
        (SettingKind::Limit, _) => true,
        (SettingKind::Text | SettingKind::Switch | SettingKind::Secret, source) => {
            source != Source::Default && SHARED.contains(&row.setting.name)
        }
    }
}

fn flag(setting: &Setting, value: &str) -> String {
    format!("--{}={value}", setting.flag())
}
