//! What a test may rely on with several Redis servers.

use hiveops_testkit::broker::{RedisCluster, RedisOptions, RedisSentinels};

#[test]
fn sentinels_make_the_replica_master_when_the_master_is_killed_and_take_it_back_as_a_replica() {
    let options = RedisOptions { password: Some("s3cret".to_owned()), ..RedisOptions::default() };
    let mut set = RedisSentinels::start_with(&options).unwrap();
    let first = set.master().unwrap();
    assert_eq!(first, set.servers[0].addr());
    set.servers[0].command(&["SET", "key", "value"]).unwrap();
    // Until the replica has it.
    assert_eq!(set.servers[0].command(&["WAIT", "1", "4000"]).unwrap(), "1");
    set.server(first).unwrap().kill().unwrap();
    let second = set.wait_failover(first).unwrap();
    assert_eq!(set.server(second).unwrap().command(&["GET", "key"]).unwrap(), "value");
    set.server(first).unwrap().restart().unwrap();
    set.wait_in_step().unwrap();
    assert_eq!(set.master().unwrap(), second);
}

#[test]
fn the_master_is_known_while_a_sentinel_is_gone() {
    let mut set = RedisSentinels::start().unwrap();
    let master = set.master().unwrap();
    set.sentinels[0].kill().unwrap();
    assert_eq!(set.master().unwrap(), master);
    set.sentinels[0].restart().unwrap();
    set.wait_in_step().unwrap();
}

#[test]
fn a_cluster_has_every_key_in_one_place_and_is_whole_again_after_a_restart() {
    let mut cluster = RedisCluster::start().unwrap();
    let keys = ["a", "b", "c", "{tag}:1", "{tag}:2"];
    for key in keys {
        let owner = cluster.owner(key).unwrap();
        cluster.servers[owner].command(&["SET", key, key]).unwrap();
        let error = cluster.servers[(owner + 1) % 3].command(&["GET", key]).unwrap_err().to_string();
        assert!(error.contains("MOVED"), "{error}");
    }
    assert_eq!(cluster.owner("{tag}:1").unwrap(), cluster.owner("{tag}:2").unwrap());
    let owner = cluster.owner("a").unwrap();
    cluster.servers[owner].kill().unwrap();
    cluster.servers[owner].restart().unwrap();
    cluster.wait_whole().unwrap();
    assert_eq!(cluster.servers[owner].command(&["GET", "a"]).unwrap(), "a");
}
