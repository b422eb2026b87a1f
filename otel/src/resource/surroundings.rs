//! Where this program runs: host, operating system, container, pod, as the resource
//! detectors of the conventions tell them (`docs/resource/{host,os,container,k8s}.md` of the
//! semantic conventions 1.44). Pure: it is given the texts of the files and the variables,
//! and tells only what they say.

use std::collections::HashMap;

use opentelemetry::KeyValue;

/// Digits of a container's id: every runtime draws 256 bits.
const CONTAINER_ID_DIGITS: usize = 64;
/// A longer value of a variable or a file is not the thing that it is named after.
const LONGEST: usize = 512;

/// What there is to read. The default is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// `/proc/self/cgroup`.
    pub cgroup: String,
    /// `/proc/self/mountinfo`.
    pub mountinfo: String,
    /// `/etc/machine-id`, or else `/var/lib/dbus/machine-id`.
    pub machine_id: String,
    /// `/etc/os-release`.
    pub os_release: String,
    /// The machine as uname(2) names it.
    pub machine: String,
    /// `/var/run/secrets/kubernetes.io/serviceaccount/namespace`.
    pub namespace: String,
    /// The environment's variables.
    pub variables: HashMap<String, String>,
    /// The process that started all others.
    pub supervisor_pid: Option<u32>,
    /// The name of the user that it runs as.
    pub owner: Option<String>,
}

/// Variables by which pods are told their own names (Kubernetes, "Expose Pod Information
/// to Containers Through Environment Variables"); the names are the pod's author's, and
/// these are the usual ones. The first that is set counts.
const FROM_VARIABLES: &[(&str, &[&str])] = &[
    ("k8s.pod.name", &["K8S_POD_NAME", "POD_NAME", "MY_POD_NAME"]),
    (
        "k8s.namespace.name",
        &[
            "K8S_NAMESPACE_NAME",
            "K8S_NAMESPACE",
            "K8S_POD_NAMESPACE",
            "POD_NAMESPACE",
            "MY_POD_NAMESPACE",
        ],
    ),
    ("k8s.pod.uid", &["K8S_POD_UID", "POD_UID", "MY_POD_UID"]),
    (
        "k8s.node.name",
        &["K8S_NODE_NAME", "NODE_NAME", "KUBE_NODE_NAME", "MY_NODE_NAME"],
    ),
    ("k8s.container.name", &["K8S_CONTAINER_NAME", "CONTAINER_NAME"]),
];

impl Surroundings {
    /// The attributes that could be found out, each once.
    pub(super) fn attributes(&self) -> Vec<KeyValue> {
        let container = self.container_id();
        let mut found: Vec<(&'static str, String)> = vec![("os.type", "linux".to_owned())];
        let mut tell = |key, value: Option<String>| {
            found.extend(value.filter(|value| is_sound(value)).map(|value| (key, value)));
        };
        tell("host.arch", self.arch());
        // In a container the file is the image's, the same on every machine, if not empty.
        tell("host.id", self.host_id().filter(|_| container.is_none()));
        tell("os.name", self.of_release("NAME"));
        tell("os.version", self.of_release("VERSION_ID"));
        tell("os.description", self.of_release("PRETTY_NAME"));
        tell("container.id", container);
        tell("process.owner", self.owner.clone());
        for (key, value) in self.kubernetes() {
            tell(key, value);
        }
        let texts = found.into_iter().map(|(key, value)| KeyValue::new(key, value));
        let pid = self.supervisor_pid;
        let pid = pid.map(|pid| KeyValue::new("process.pid", i64::from(pid)));
        texts.chain(pid).collect()
    }

    /// By the names of the conventions, `host.arch`.
    fn arch(&self) -> Option<String> {
        let known = match self.machine.as_str() {
            "x86_64" => "amd64",
            "aarch64" | "aarch64_be" => "arm64",
            "i386" | "i486" | "i586" | "i686" => "x86",
            "ppc64" | "ppc64le" => "ppc64",
            "ppc" => "ppc32",
            arm if arm.starts_with("armv") => "arm32",
            other => other,
        };
        (!known.is_empty()).then(|| known.to_owned())
    }

    /// As it is, as the conventions have it ("Non-privileged Machine ID Lookup").
    fn host_id(&self) -> Option<String> {
        let id = self.machine_id.trim();
        // "uninitialized" in images that were never booted (machine-id(5)).
        (id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit())).then(|| id.to_owned())
    }

    /// A value of os-release(5): shell-like, quoted or not, without escapes in practice.
    fn of_release(&self, key: &str) -> Option<String> {
        let value = self
            .os_release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        let value = value.trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// From the control group, which is that of the container with version 1 and without a
    /// namespace for them; else from what a runtime mounts from the container's own folder.
    fn container_id(&self) -> Option<String> {
        // hierarchy:controllers:path (cgroups(7)).
        let of_groups = self.cgroup.lines().find_map(|line| {
            let path = line.splitn(3, ':').nth(2)?;
            path.rsplit('/').find_map(|part| id_in(part, false))
        });
        of_groups.or_else(|| {
            self.roots().find_map(|root| {
                // `/var/lib/docker/containers/ID/hostname` and the like of CRI-O and Podman
                // (`overlay-containers`); a sandbox is another container of the pod.
                let (_, rest) = root.rsplit_once("containers/")?;
                id_in(rest.split('/').next()?, true)
            })
        })
    }

    /// The root of each mount within its file system (proc(5), mountinfo, the fourth field).
    fn roots(&self) -> impl Iterator<Item = &str> {
        self.mountinfo.lines().filter_map(|line| line.split(' ').nth(3))
    }

    fn kubernetes(&self) -> Vec<(&'static str, Option<String>)> {
        let uid = self.pod_uid();
        let is_pod = uid.is_some()
            || !self.namespace.trim().is_empty()
            || self.variables.contains_key("KUBERNETES_SERVICE_HOST");
        if !is_pod {
            return Vec::new();
        }
        let told = FROM_VARIABLES.iter().map(|(key, names)| {
            let mut set = names.iter().filter_map(|name| self.variables.get(*name));
            let value = set.find(|value| !value.is_empty()).cloned();
            let value = value.or_else(|| match *key {
                "k8s.pod.uid" => uid.clone(),
                "k8s.namespace.name" => Some(self.namespace.trim().to_owned()),
                "k8s.container.name" => self.container_name(),
                _ => None,
            });
            (*key, value)
        });
        told.collect()
    }

    /// From the control group (`/kubepods/burstable/podUID/…`, or with systemd
    /// `…-podUID.slice` with underscores), else from the files that the kubelet mounts
    /// (`/var/lib/kubelet/pods/UID/etc-hosts`).
    fn pod_uid(&self) -> Option<String> {
        let of_groups = self.cgroup.lines().find_map(|line| {
            let (_, path) = line.split_once("kubepods")?;
            path.split('/').find_map(|part| {
                let part = part.strip_suffix(".slice").unwrap_or(part);
                let (_, uid) = part.rsplit_once("pod")?;
                uid_in(&uid.replace('_', "-"))
            })
        });
        of_groups.or_else(|| self.of_kubelet().find_map(|rest| uid_in(rest.split('/').next()?)))
    }

    /// `/var/lib/kubelet/pods/UID/containers/NAME/HASH`, what it mounts as the
    /// termination log.
    fn container_name(&self) -> Option<String> {
        self.of_kubelet().find_map(|rest| {
            let (_, rest) = rest.split_once("/containers/")?;
            rest.split('/').next().map(str::to_owned)
        })
    }

    fn of_kubelet(&self) -> impl Iterator<Item = &str> {
        self.roots()
            .filter_map(|root| Some(root.split_once("/kubelet/pods/")?.1))
    }
}

/// A container's id in a part of a path, bare or as in `docker-ID.scope`.
fn id_in(part: &str, bare: bool) -> Option<String> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let id = match part.rsplit_once('-') {
        Some((_, id)) if !bare => id,
        _ => part,
    };
    // Also behind a colon: `kubepods-…:cri-containerd:ID` of containerd without systemd.
    let id = id.rsplit(':').next().unwrap_or(id);
    let is_id = id.len() == CONTAINER_ID_DIGITS && id.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}

/// A UUID, or the 32 digits of a static pod.
fn uid_in(text: &str) -> Option<String> {
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    let others = text.bytes().filter(|byte| *byte == b'-').count();
    (digits == 32 && digits + others == text.len() && matches!(others, 0 | 4)).then(|| text.to_owned())
}

/// Texts come from files and variables that others wrote.
fn is_sound(value: &str) -> bool {
    !value.is_empty() && value.len() <= LONGEST && !value.contains(char::is_control)
}

#[cfg(test)]
mod tests;
