//! The published documents do not change unnoticed: `schemas/history.json` pins them by digest.

use hiveops_proto::{Contract, ContractVersion, Timestamp, contract_digest, schema_digest};
use serde::Deserialize;

#[derive(Deserialize)]
struct Entry {
    version: ContractVersion,
    schema_digest: String,
    contract_digest: String,
    date: String,
    change: String,
}

fn entries() -> Vec<Entry> {
    serde_json::from_str(include_str!("../../../schemas/history.json")).unwrap()
}

const INSTRUCTIONS: &str = "
the published contract is not the one that schemas/history.json pins for its version. Clients rely on it, so:

  1. Say what the change is to a client that does not know it.
       patch   words only: a description, an example, a title
       minor   it only adds: a frame, an optional member, a message type, a subscription
       major   anything else: a member that goes, a new required one, a narrower value, another meaning
  2. Give `version` in schemas/contract.json the next number of that kind.
  3. Add a line at the end of schemas/history.json with that version and the two digests below.
  4. Add or change the samples in schemas/samples, and for a minor or major change write what a client
     has to do under \"Versions\" in docs/protocol.md.
  5. Run `npm -w mobile-pwa run generate:schemas` and commit what it writes.

Until 1.0.0 is released nobody relies on it yet: then the last line may simply take the new digests.
";

#[test]
fn the_contract_changes_only_with_its_version() {
    let version = Contract::parse(hiveops_proto::CONTRACT).unwrap().version;
    let entries = entries();
    let last = entries.last().unwrap();
    let (schema, contract) = (schema_digest(), contract_digest());
    assert!(
        (last.version, &last.schema_digest, &last.contract_digest) == (version, &schema, &contract),
        "{INSTRUCTIONS}\n  \"version\": \"{version}\",\n  \"schema_digest\": \"{schema}\",\n  \
         \"contract_digest\": \"{contract}\"\n"
    );
}

#[test]
fn the_history_is_in_order_and_says_what_changed() {
    let entries = entries();
    assert!(entries.windows(2).all(|pair| pair[0].version < pair[1].version), "versions must grow");
    for entry in entries {
        assert!(!entry.change.is_empty(), "{} does not say what changed", entry.version);
        assert!(Timestamp::parse(&format!("{}T00:00:00Z", entry.date)).is_ok(), "{}", entry.date);
        for digest in [entry.schema_digest, entry.contract_digest] {
            assert!(digest.starts_with("sha256:") && digest.len() == 71, "{digest}");
        }
    }
}
