//! What every `-h` opens with: two command lines to change and run.
//!
//! They are written for somebody who knows docker and a shell, and what differs between the two
//! says what the verb is for. The column of remarks is part of the text.

/// Two examples below their heading.
macro_rules! examples {
    ($($name:ident: $first:literal, $second:literal;)*) => {$(
        pub(super) const $name: &str = concat!("Examples:\n  cairn ", $first, "\n  cairn ", $second);
    )*};
}

examples! {
    TOP: "images pull localhost:5000/busybox:1.36      fetch an image of a registry",
         "images mount busybox:1.36                    look at its files without running it";
    IMAGES: "images                           list what is here",
            "images pull busybox:1.36         fetch one of a registry";
    PULL: "images pull -u USER registry.example.com/shop/web:2.1",
          "images pull --json busybox:1.36 | jq -r .image.target.digest      for a script";
    PUSH: "images push registry.example.com/tools/busybox:1.36 busybox:1.36",
          "images push -u USER registry.example.com/shop/web:2.1";
    EXPLAIN_HOST: "explain-host busybox:1.36        mirrors first, the registry last",
                  "explain-host registry.example.com:5000";
    IMPORT: "images import busybox.tar             take in what `docker save` wrote",
            "images import --platform linux/arm64 - < web.tar";
    EXPORT: "images export busybox.tar busybox:1.36      `docker load` reads it",
            "images export - web:2.1 | ssh HOST cairn images import -";
    LS: "images ls                        all of them",
        "images ls busybox --json         all tags of one, for a program";
    INSPECT: "images inspect busybox:1.36      its manifest, configuration and layers",
             "images inspect --config busybox:1.36 | jq .config.Env";
    TAG: "images tag busybox:1.36 registry.example.com/tools/busybox:1.36",
         "images tag --force busybox:1.36 busybox:stable      move the second name";
    RM: "images rm busybox:1.36           drop the name; `cairn gc` frees the space",
        "images rm --sync busybox:1.36 busybox:1.35      drop both and free it now";
    MOUNT: "images mount busybox:1.36        print the directory it is mounted at",
           "images mount --rw busybox:1.36 /mnt && cairn images unmount --rm /mnt";
    UNMOUNT: "images unmount /mnt              changes of a writable mount are kept",
             "images unmount --rm /mnt         leave nothing";
    USAGE: "images usage busybox:1.36        what each of its layers takes on disk",
           "images usage -b busybox:1.36     in bytes";
    CHECK: "images check                     is anything of any image missing?",
           "images check -q | xargs -r -n 1 cairn images inspect";
    CONTENT: "content                          list blobs",
             "content get 791d2af5d3b2         write one to standard output";
    CONTENT_LS: "content ls                       all blobs of this namespace",
                "content ls -q sha256:79          whole digests that begin so";
    CONTENT_GET: "content get 791d2af5d3b2 | jq .layers      a manifest",
                 "content get -o layer.tar.gz sha256:cfcf8b70af1f";
    CONTENT_INFO: "content info 791d2af5d3b2        size, age and labels",
                  "content info --json 791d2af5d3b2 | jq .labels";
    CONTENT_RM: "content rm 791d2af5d3b2          an image that needs it is incomplete then",
                "content rm $(cairn content ls -q labels.scratch==yes)";
    SNAPSHOTS: "snapshots                        list unpacked layers",
               "snapshots tree                   who stands on whom";
    SNAPSHOTS_LS: "snapshots ls --wide              also inodes, age and labels",
                  "snapshots ls kind==active        what is written to";
    SNAPSHOTS_TREE: "snapshots tree                   one blank per level",
                    "snapshots tree --no-trunc        with whole digests";
    SNAPSHOTS_INFO: "snapshots info 0c5943b2c9a0      parent, kind, size, labels",
                    "snapshots info --json 0c5943b2c9a0 | jq .size";
    SNAPSHOTS_USAGE: "snapshots usage                  what each takes on disk",
                     "snapshots usage -b 0c5943b2c9a0  one, in bytes";
    SNAPSHOTS_RM: "snapshots rm 0c5943b2c9a0        unpacked again when it is needed",
                  "snapshots rm --recursive 0c5943b2c9a0      with all that stands on it";
    BUNDLE: "bundle create busybox:1.36 /run/demo      then: runc run -b /run/demo demo",
            "bundle                                    list them";
    BUNDLE_RM: "bundle rm /run/demo              unmount it and delete its files",
               "bundle rm $(cairn bundle ls -q)";
    BUNDLE_LS: "bundle ls                        what is mounted, and how big its changes are",
               "bundle ls -q                     their directories";
    DF: "df                               by kind",
        "df --disk                        what each byte on the disk is there for";
    WHY: "why sha256:1f1c6fd                who has this blob or layer",
         "why busybox --json | jq -r '.[].held_by[].frees'";
    GC: "gc --dry-run                     what would go",
        "gc                               remove it";
    FSCK: "fsck                             is anything damaged or missing?",
          "fsck --deep --repair             read every byte, mend what can be mended";
    INFO: "info                             where the store is and what it holds",
          "info --json | jq .usage";
    VERSION: "version                          of this program and of the server",
             "version --json | jq -r .client.version";
    COMPLETION: "completion bash > /etc/bash_completion.d/cairn",
                "completion zsh > /usr/share/zsh/vendor-completions/_cairn";
    MAN: "man images import | man -l -     read one page",
         "man --dir /usr/local/share/man/man1      install all of them";
    EVENTS: "events                           what happens from now on",
            "events --json /images | jq -r .event.name";
    PLUGINS: "plugins                          what the server is made of",
             "plugins -d                       with capabilities and where they keep things";
    LABEL: "images label busybox:1.36 team=web      set one",
           "images label busybox:1.36 team-         remove it";
    CONTENT_PUT: "content put notes.txt            store a file, print its digest",
                 "content put --label team=web - < layer.tar.gz";
    CONTENT_LABEL: "content label 791d2af5d3b2 team=web      set one",
                   "content label 791d2af5d3b2 containerd.io/gc.root-      let `cairn gc` have it";
    CONTENT_INGESTS: "content ingests                  uploads that are under way or were interrupted",
                     "content ingests ^layer-          those whose ref begins so";
    CONTENT_ABORT: "content abort my-upload          throw its bytes away",
                   "content abort $(cairn content ingests -q)";
    SNAPSHOTS_PREPARE: "snapshots prepare work 0c5943b2c9a0      then: cairn snapshots mounts /mnt work",
                       "snapshots prepare -t /mnt work 0c5943b2c9a0 | sh      make and mount it";
    SNAPSHOTS_VIEW: "snapshots view look 0c5943b2c9a0        then: cairn snapshots mounts /mnt look",
                    "snapshots view -t /mnt look 0c5943b2c9a0 | sh      make and mount it";
    SNAPSHOTS_COMMIT: "snapshots commit base work       `work` is gone, `base` cannot change any more",
                      "snapshots commit sha256:DIGEST work      as `images import` names them";
    SNAPSHOTS_MOUNTS: "snapshots mounts /mnt work       print the command",
                      "snapshots mounts /mnt work | sh  run it";
    SNAPSHOTS_DIFF: "snapshots diff work              what it adds to its parent, as a layer",
                    "snapshots diff --keep --media-type application/vnd.oci.image.layer.v1.tar a b";
    SNAPSHOTS_LABEL: "snapshots label work team=web    set one",
                     "snapshots label work containerd.io/gc.root-      let `cairn gc` have it";
    LEASES: "leases                           what is held, until when",
            "leases create -x 1h              hold something for an hour";
    LEASES_LS: "leases ls                        all of this namespace",
               "leases ls -q labels.team==web    ids, for the next command";
    LEASES_CREATE: "leases create --id build -x 2h team=web",
                   "leases create -x 0               until it is removed";
    LEASES_RM: "leases rm build                  what it alone held goes at the next `cairn gc`",
               "leases rm --sync build           free the space now";
    LEASES_ADD: "leases add build images busybox:1.36",
                "leases add build content 791d2af5d3b2";
    LEASES_RESOURCES: "leases resources build           what it holds",
                      "leases resources -q build        names only";
    NAMESPACES: "namespaces                       who has what, and how big it is",
                "namespaces create dev team=web   make one with a label";
    NAMESPACES_LS: "namespaces ls                    all of them",
                   "namespaces ls --json | jq .[].images";
    NAMESPACES_CREATE: "namespaces create dev            `cairn -n dev images import …` makes it, too",
                       "namespaces create dev team=web   with a label";
    NAMESPACES_LABEL: "namespaces label dev team=web    set one",
                      "namespaces label dev team-       remove it";
    NAMESPACES_RM: "namespaces rm dev                it must be empty",
                   "namespaces rm dev test           both";
}
