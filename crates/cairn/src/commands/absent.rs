//! What was asked for and is another tool's work: the next step, and exit code 2.

use cairn_types::ErrorKind;

use crate::{
    args::Absent,
    error::{Problem, quote},
};

/// docker's and podman's flags of `run` that take no value; of any other the next word may be one.
const RUN_SWITCHES: [&str; 12] = [
    "-i",
    "-t",
    "-d",
    "-it",
    "-ti",
    "--rm",
    "--interactive",
    "--tty",
    "--detach",
    "--init",
    "--privileged",
    "--read-only",
];

/// The answer to a command that Cairn has not.
pub(super) fn elsewhere(verb: &Absent) -> Problem {
    match verb {
        Absent::Run(rest) => {
            let (image, args) = image_and_args(&rest.words);
            let args = match args {
                [] => String::new(),
                args => format!(" -- {}", quoted(args)),
            };
            absent("cairn keeps images and runs nothing").next(format!(
                "cairn bundle create {image} DIR{args} && runc run -b DIR ID"
            ))
        }
        Absent::Ps(_) => absent("cairn keeps images and runs nothing")
            .next("cairn bundle create IMAGE DIR && runc run -b DIR ID"),
        Absent::Build(_) => absent("cairn keeps images and builds none")
            .next("buildctl build --output type=oci,dest=FILE … && cairn images import FILE"),
        Absent::Login(_) => absent("cairn keeps no passwords; it reads those of docker and podman")
            .next("docker login REGISTRY")
            .next("podman login REGISTRY"),
        Absent::Search(_) => {
            absent("cairn searches no registry").next("curl -s https://REGISTRY/v2/_catalog")
        }
    }
}

/// Something that Cairn does not do.
pub(super) fn absent(sentence: &str) -> Problem {
    let mut problem = Problem::usage(sentence);
    problem.kind = ErrorKind::Unimplemented;
    problem
}

/// The image of `docker run FLAGS IMAGE ARGS` and what it is to run. Where a flag might have a value
/// there is no telling, and the words of a manual stand for them.
fn image_and_args(words: &[String]) -> (String, &[String]) {
    let flags = words.iter().take_while(|word| word.starts_with('-'));
    let known = |word: &&String| RUN_SWITCHES.contains(&&***word) || word.contains('=');
    let first = flags.clone().count();
    match words.get(first) {
        Some(image) if flags.clone().all(|word| known(&word)) => {
            (quote(image), &words[first + 1..])
        }
        _ => ("IMAGE".to_owned(), &[]),
    }
}

fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Rest;

    #[test]
    fn a_run_becomes_a_bundle_with_the_same_words() {
        let check = |line: &str, create: &str| {
            let words = shlex::split(line).expect("words");
            let problem = elsewhere(&Absent::Run(Rest { words }));
            let expected = format!("cairn bundle create {create} && runc run -b DIR ID");
            assert_eq!(problem.next, [expected], "{line}");
            assert_eq!(problem.exit_code(), 2);
        };
        check("busybox", "busybox DIR");
        check("-it --rm busybox sh", "busybox DIR -- sh");
        check("busybox sh -c 'echo hi'", "busybox DIR -- sh -c 'echo hi'");
        check("--name=a busybox:1.36 -x", "busybox:1.36 DIR -- -x");
        check("-v /a:/b busybox", "IMAGE DIR");
        check("-it", "IMAGE DIR");
        check("", "IMAGE DIR");
    }
}
