//! `hiveops config env-example`: every setting as a line of a file of environment variables, made from the
//! tables of nodes and control replicas. `.env.example` of the repository is its output.

use std::fmt::Write as _;

use hiveops_node::config::{Kind, Setting, settings};
use hiveops_proto::Limits;

const HEAD: &str = "\
# Every setting as an environment variable. Written by `hiveops config env-example`; a test compares.
# What stands behind a `#` is the default, or the form of what has none. Take away the `#` of what you change,
# and leave the others as they are: an empty value is an error. Each secret can be in a file instead (`_FILE`).
#
# A start with users, beside a control plane (docs/security.md):
#HIVEOPS_PROFILE=production
#HIVEOPS_CONTROL=http://10.0.0.1:7100,http://10.0.0.2:7100,http://10.0.0.3:7100
#HIVEOPS_CLUSTER_SECRET_FILE=/etc/hiveops/cluster-secret
#WS_AUTH_MODE=jwt
#WS_ALLOWED_ORIGINS=https://ops.example.com
";

/// The whole file.
pub(super) fn text() -> String {
    let of_nodes = settings();
    let (limits, general): (Vec<&Setting>, Vec<&Setting>) =
        of_nodes.iter().partition(|setting| setting.kind == Kind::Limit);
    let mut text = HEAD.to_owned();
    section(&mut text, "Nodes: hiveops node, hiveops dev");
    for setting in general {
        let is_secret = setting.kind == Kind::Secret;
        entry(&mut text, setting.doc, &setting.env, &setting.default, setting.placeholder, is_secret);
    }
    section(&mut text, "Limits of nodes: where each begins; the control plane changes them live");
    for setting in limits {
        let range = Limits::spec(setting.name).map(|spec| (spec.unit, spec.min, spec.max));
        let doc = match range {
            Some((unit, min, max)) => format!("{} ({unit}, {min} to {max})", setting.doc),
            None => setting.doc.to_owned(),
        };
        entry(&mut text, &doc, &setting.env, &setting.default, setting.placeholder, false);
    }
    section(&mut text, "Control replicas: hiveops control");
    let is_new = |env: &str| of_nodes.iter().all(|setting| setting.env != env);
    for setting in hiveops_control::config::settings().iter().filter(|setting| is_new(setting.env)) {
        entry(&mut text, setting.doc, setting.env, setting.default, setting.placeholder, setting.secret);
    }
    text
}

fn section(text: &mut String, title: &str) {
    push(text, format_args!("\n# --- {title} ---\n"));
}

fn entry(text: &mut String, doc: &str, env: &str, default: &str, form: &str, is_secret: bool) {
    push(text, format_args!("\n# {doc}\n"));
    match (default, is_secret) {
        ("", true) => push(text, format_args!("#{env}=<{form}>\n#{env}_FILE=<FILE>\n")),
        ("", false) => push(text, format_args!("#{env}=<{form}>\n")),
        (default, _) => push(text, format_args!("#{env}={default}\n")),
    }
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("a string takes everything");
}
