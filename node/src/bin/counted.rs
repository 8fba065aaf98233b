//! `counted NAME TIMES` does one thing so many times: the program under callgrind of `scripts/instructions`.
//! Without arguments it names what it can do.

use std::process::ExitCode;

use hiveops_node::counted::CASES;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, times] = arguments.as_slice() else {
        for (name, _) in CASES {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    let case = CASES.iter().find(|(known, _)| known == name);
    let (Some((_, case)), Ok(times)) = (case, times.parse()) else {
        eprintln!("error: there is no case `{name}`, or `{times}` is no number");
        return ExitCode::FAILURE;
    };
    case(times);
    ExitCode::SUCCESS
}
