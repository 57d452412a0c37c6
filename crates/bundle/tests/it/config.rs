//! A configuration of one's own, laid over the image's.

use serde_json::json;

use crate::common::bundle::*;
use crate::common::remove;

#[test]
fn both_runtimes_run_what_was_laid_over() {
    let script = "hostname; ulimit -n; grep NoNew /proc/self/status";
    let layer = tree(|root| {
        std::os::unix::fs::symlink("busybox", root.join("bin/grep")).expect("link");
    });
    let store = imported(&layer, &json!({"Cmd": ["/bin/sh", "-c", script]}));
    for runtime in ["runc", "crun"] {
        let bundle = create(&store, |request| {
            request.hostname = Some("flag".to_owned());
            request.config = Some(json!({
                "hostname": "file",
                "process": {
                    "noNewPrivileges": null,
                    "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 64, "soft": 64}],
                },
            }));
        })
        .expect("create");
        let printed = contained(runtime, &bundle);
        assert_eq!(printed, "file\n64\nNoNewPrivs:\t0\n", "{runtime}");
        remove(&store, &bundle).expect("remove");
        assert_no_bundle(&store);
    }
}

#[test]
fn what_is_no_configuration_any_more_leaves_nothing() {
    let store = imported(&tree(|_| ()), &json!({"Cmd": ["sh"]}));
    for over in [json!({"ociVersion": null}), json!({"mounts": {"a": 1}})] {
        let failure = create(&store, |request| request.config = Some(over)).expect_err("refused");
        assert_eq!(failure.kind, cairn_types::ErrorKind::InvalidArgument);
        assert_eq!(failure.causes.len(), 1, "{failure}");
        assert_no_bundle(&store);
    }
}
