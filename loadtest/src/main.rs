//! `hiveops-loadtest`: looks at a server from outside, as its clients and publishers do, and counts.
//!
//! One file per subcommand; what they share stands beside them. Nothing here knows how the server works:
//! the crate sees its paths, its frames, and what the kernel says of its process.

mod burst;
mod chain;
mod churn;
mod clock;
mod compress;
mod connection;
mod failure;
mod fanout;
mod floor;
mod hops;
mod http;
mod idle;
mod inflate;
mod load;
mod marker;
mod names;
mod options;
mod peer;
mod process;
mod publisher;
mod reach;
mod rounds;
mod scrape;
mod slow;
mod swarm;
mod syscalls;
mod tally;
mod target;
mod wire;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures a HiveOps server from outside.
#[derive(Parser)]
#[command(name = "hiveops-loadtest", version, about)]
struct Arguments {
    #[command(subcommand)]
    test: Test,
}

#[derive(Subcommand)]
enum Test {
    /// Resident memory of the server per idle WebSocket connection
    Idle(idle::Arguments),
    /// Deliveries, losses, latency and the server's CPU per delivery
    Fanout(fanout::Arguments),
    /// Groups of publications back to back: CPU and system calls per delivery
    Burst(burst::Arguments),
    /// Some clients stop reading: what the others notice, and how the slow ones end
    Slow(slow::Arguments),
    /// Everybody reconnects at once: how long until all are served, and the memory it takes
    Churn(churn::Arguments),
    /// The server's CPU per delivery with compression beside that without
    Compress(compress::Arguments),
    /// How long until a publication has reached the last socket, without the clients' reading
    Reach(reach::Arguments),
    /// The same load on several servers or clusters in turn, and what each costs beside the first
    Hops(hops::Arguments),
    /// The floor: a server that does nothing but write one frame to every socket
    Floor(floor::Arguments),
}

/// How a test went that ran to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Every connection and publication did what it should.
    Clean,
    /// The figures stand, but something failed or was lost: they say what.
    Flawed,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().test {
        Test::Idle(arguments) => idle::run(&arguments),
        Test::Fanout(arguments) => fanout::run(&arguments),
        Test::Burst(arguments) => burst::run(arguments),
        Test::Slow(arguments) => slow::run(&arguments),
        Test::Churn(arguments) => churn::run(&arguments),
        Test::Compress(arguments) => compress::run(arguments),
        Test::Reach(arguments) => reach::run(&arguments),
        Test::Hops(arguments) => hops::run(&arguments),
        Test::Floor(arguments) => floor::run(&arguments),
    };
    match outcome {
        Ok(Outcome::Clean) => ExitCode::SUCCESS,
        Ok(Outcome::Flawed) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
