use super::*;

const ID: &str = "3c1e9a2b5d7f4c6e8a0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5";
const POD: &str = "6fd2b9f1-0f3a-4f0e-9d3f-0a1b2c3d4e5f";

fn told(surroundings: &Surroundings) -> HashMap<String, String> {
    let attributes = surroundings.attributes();
    let count = attributes.len();
    let told: HashMap<_, _> = attributes
        .into_iter()
        .map(|kv| (kv.key.to_string(), kv.value.to_string()))
        .collect();
    assert_eq!(told.len(), count, "one is there twice");
    told
}

#[test]
fn a_container_is_found_in_both_versions_of_control_groups() {
    let groups: &[(&str, Option<&str>)] = &[
        ("", None),
        ("0::/init.scope\n", None),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", None),
        ("0::/system.slice/php8.2-fpm.service\n", None),
        // Docker, version 1.
        (
            "12:pids:/docker/ID\n11:memory:/docker/ID\n1:name=systemd:/docker/ID\n",
            Some(ID),
        ),
        // Version 2 without a namespace, systemd as the driver.
        ("0::/system.slice/docker-ID.scope\n", Some(ID)),
        ("0::/machine.slice/libpod-ID.scope/container\n", Some(ID)),
        (
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/cri-containerd-ID.scope\n",
            Some(ID),
        ),
        (
            "0::/kubepods.slice/kubepods-podUID_.slice/crio-ID.scope\n",
            Some(ID),
        ),
        ("11:cpu:/kubepods/besteffort/podUID/ID\n", Some(ID)),
        (
            "9:cpu:/system.slice/containerd.service/kubepods-besteffort-podUID_.slice:cri-containerd:ID\n",
            Some(ID),
        ),
        ("3:cpu:/ecs/0123456789abcdef/ID\n", Some(ID)),
        // Too short for an id, and one with a letter too many.
        ("0::/docker/3c1e9a2b5d7f\n", None),
        ("0::/docker/IDx\n", None),
        ("nonsense", None),
    ];
    for (text, expected) in groups {
        let text = text
            .replace("ID", ID)
            .replace(&format!("U{ID}_"), &POD.replace('-', "_"));
        let found = told(&Surroundings {
            cgroup: text.replace(&format!("U{ID}"), POD),
            ..Surroundings::default()
        });
        assert_eq!(found.get("container.id").map(String::as_str), *expected, "{text}");
    }
}

#[test]
fn behind_a_namespace_the_mounts_tell() {
    let mounts: &[(&str, Option<&str>)] = &[
        ("/var/lib/docker/containers/ID/hostname /etc/hostname", Some(ID)),
        ("/docker/containers/ID/resolv.conf /etc/resolv.conf", Some(ID)),
        (
            "/var/lib/containers/storage/overlay-containers/ID/userdata/hostname /etc/hostname",
            Some(ID),
        ),
        // Of the pod's pause container.
        (
            "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/ID/hostname /etc/hostname",
            None,
        ),
        ("/ /", None),
    ];
    for (mount, expected) in mounts {
        let line = format!("678 655 254:1 {mount} rw,relatime - ext4 /dev/vda1 rw\n").replace("ID", ID);
        let found = told(&Surroundings {
            cgroup: "0::/\n".to_owned(),
            mountinfo: format!("655 1 0:55 / / rw - overlay overlay rw\n{line}"),
            ..Surroundings::default()
        });
        assert_eq!(found.get("container.id").map(String::as_str), *expected, "{line}");
    }
}

#[test]
fn a_pod_is_told_by_what_it_is_given() {
    let bare = Surroundings {
        cgroup: "0::/\n".to_owned(),
        variables: [("POD_NAME".to_owned(), "shop-0".to_owned())].into(),
        ..Surroundings::default()
    };
    assert!(!told(&bare).contains_key("k8s.pod.name"), "it is in no pod");
    let kubelet = format!(
        "1 0 8:1 /var/lib/kubelet/pods/{POD}/etc-hosts /etc/hosts rw - ext4 /dev/sda1 rw\n\
         2 0 8:1 /var/lib/kubelet/pods/{POD}/containers/php/1a2b3c4d /dev/termination-log rw - ext4 /dev/sda1 rw\n"
    );
    let pod = Surroundings {
        mountinfo: kubelet,
        namespace: "shops\n".to_owned(),
        ..bare
    };
    let found = told(&pod);
    for (key, expected) in [
        ("k8s.pod.name", "shop-0"),
        ("k8s.pod.uid", POD),
        ("k8s.namespace.name", "shops"),
        ("k8s.container.name", "php"),
    ] {
        assert_eq!(found.get(key).map(String::as_str), Some(expected), "{key}");
    }
    assert!(!found.contains_key("k8s.node.name"));
    let mut named = pod;
    named
        .variables
        .insert("NODE_NAME".to_owned(), "node-7".to_owned());
    named
        .variables
        .insert("POD_NAMESPACE".to_owned(), "told".to_owned());
    let found = told(&named);
    assert_eq!(found["k8s.node.name"], "node-7");
    assert_eq!(found["k8s.namespace.name"], "told", "before the file");
}

#[test]
fn a_pod_is_found_in_the_control_group() {
    for path in [
        format!("/kubepods/burstable/pod{POD}/{ID}"),
        format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/crio-{ID}.scope",
            POD.replace('-', "_")
        ),
    ] {
        let found = told(&Surroundings {
            cgroup: format!("0::{path}\n"),
            ..Surroundings::default()
        });
        assert_eq!(found["k8s.pod.uid"], POD, "{path}");
        assert_eq!(found["container.id"], ID, "{path}");
    }
}

#[test]
fn the_host_is_told_unless_the_file_is_an_images() {
    let host = Surroundings {
        machine_id: "b08dfa6083e7567a1921a715000001fb\n".to_owned(),
        os_release:
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\n"
                .to_owned(),
        machine: "x86_64".to_owned(),
        supervisor_pid: Some(4711),
        owner: Some("root".to_owned()),
        ..Surroundings::default()
    };
    let found = told(&host);
    for (key, expected) in [
        ("host.id", "b08dfa6083e7567a1921a715000001fb"),
        ("host.arch", "amd64"),
        ("os.type", "linux"),
        ("os.name", "Debian GNU/Linux"),
        ("os.version", "12"),
        ("os.description", "Debian GNU/Linux 12 (bookworm)"),
        ("process.pid", "4711"),
        ("process.owner", "root"),
    ] {
        assert_eq!(found.get(key).map(String::as_str), Some(expected), "{key}");
    }
    let contained = Surroundings {
        cgroup: format!("0::/docker/{ID}"),
        ..host.clone()
    };
    assert!(!told(&contained).contains_key("host.id"));
    for text in ["uninitialized\n", "", "b08d", "zz8dfa6083e7567a1921a715000001fb"] {
        let unknown = Surroundings {
            machine_id: text.to_owned(),
            ..host.clone()
        };
        assert!(!told(&unknown).contains_key("host.id"), "{text:?}");
    }
}

#[test]
fn machines_have_the_names_of_the_conventions() {
    for (machine, expected) in [
        ("aarch64", Some("arm64")),
        ("armv7l", Some("arm32")),
        ("i686", Some("x86")),
        ("s390x", Some("s390x")),
        ("ppc64le", Some("ppc64")),
        ("riscv64", Some("riscv64")),
        ("", None),
    ] {
        let found = told(&Surroundings {
            machine: machine.to_owned(),
            ..Surroundings::default()
        });
        assert_eq!(found.get("host.arch").map(String::as_str), expected, "{machine}");
    }
}

#[test]
fn what_cannot_be_a_name_is_left_out() {
    let mut hostile = Surroundings {
        namespace: "x".repeat(LONGEST + 1),
        owner: Some("a\u{1b}b".to_owned()),
        mountinfo: "\n \n1 2 3\n/kubelet/pods/\n".to_owned(),
        ..Surroundings::default()
    };
    hostile.variables.insert("POD_NAME".to_owned(), "a\nb".to_owned());
    let found = told(&hostile);
    assert_eq!(found.into_keys().collect::<Vec<_>>(), ["os.type"]);
}
