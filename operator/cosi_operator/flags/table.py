"""The flags of both processes, grouped as in their help."""

from collections.abc import Mapping, Sequence

from cosi_operator.flags.scan import Flag
from cosi_operator.settings import DEFAULT_DRIVER_ADDRESS

DRIVER = (
    Flag(
        "driver-addr",
        f"the driver's Unix socket: unix:///path, unix:path or /path"
        f" (default {DEFAULT_DRIVER_ADDRESS})",
        value="ADDRESS",
        short="d",
        env=("DRIVER_ADDR", "COSI_ENDPOINT"),
    ),
    Flag(
        "driver-call-timeout",
        "time limit for one attempt of a driver call (default 60s)",
        value="DURATION",
    ),
    Flag(
        "serialize-access-calls",
        "run DriverGrantBucketAccess and DriverRevokeBucketAccess one at a time: driver (all of"
        " them), bucket (those of one bucket) or none; docs/drivers.md lists what each driver"
        " allows (default driver)",
        value="SCOPE",
        env=("COSI_SERIALIZE_ACCESS_CALLS",),
    ),
)

SECRETS = (
    Flag(
        "secret-extra-keys",
        "add COSI_*, AWS_* and AZURE_* keys to each Secret besides BucketInfo, for envFrom of a"
        " Pod (default true)",
        env=("COSI_SECRET_EXTRA_KEYS",),
    ),
)

RETRIES = (
    Flag(
        "retry-policy",
        "policy that decides which status codes of the driver are retried: conservative, cosi-spec"
        " or csi-like (default conservative)",
        value="PROFILE",
        env=("COSI_RETRY_POLICY",),
    ),
    Flag(
        "retry-override",
        "an exception to the policy, [driver/][Call:]CODE=verdict, for example"
        " DriverGrantBucketAccess:UNKNOWN=requeue; may be repeated (in the environment: separated"
        " by commas)",
        value="OVERRIDE",
        env=("COSI_RETRY_OVERRIDES",),
    ),
    Flag(
        "retry-policy-file",
        "a YAML or JSON file with a policy and overrides per driver",
        value="PATH",
        env=("COSI_RETRY_POLICY_FILE",),
    ),
)

RECHECKS = (
    Flag(
        "terminal-recheck-interval",
        "interval at which calls that the driver refused are retried; 0 is never (default 0)",
        value="DURATION",
    ),
    Flag(
        "deletion-recheck-interval",
        "interval at which deletions that the driver refused are retried; 0 is never (default 10m)",
        value="DURATION",
    ),
)

CLUSTER = (
    Flag(
        "kubeconfig",
        "path of a kubeconfig file (default: the Pod's own service account)",
        value="PATH",
        env=("KUBECONFIG",),
    ),
    Flag(
        "leader-elect",
        "let only one of several replicas reconcile at a time (default true)",
    ),
    Flag(
        "workers",
        "maximum number of objects of one kind that are reconciled at the same time; at most half"
        " of them for one class, a third for one class in one namespace (default 120)",
        value="NUMBER",
    ),
)

OBSERVABILITY = (
    Flag(
        "metrics-bind-address",
        "address for /metrics and the probes, host:port or :port; 0 is off (default 0)",
        value="ADDRESS",
    ),
    Flag(
        "health-probe-bind-address",
        "address for the probes /healthz, /readyz and /startupz; 0 is off (default 0)",
        value="ADDRESS",
    ),
)

TRACES = (
    Flag(
        "trace-endpoint",
        "send traces to this OpenTelemetry collector over OTLP/HTTP, for example"
        " http://collector:4318 (default: no traces)",
        value="URL",
        env=("OTEL_EXPORTER_OTLP_ENDPOINT",),
    ),
)

LOGS = (
    Flag("debug", "write debugging logs", short="g", env=("DEBUG",)),
    Flag("v", "klog verbosity; 4 or more means --debug", value="LEVEL", short="v", env=("V",)),
    Flag(
        "log-format",
        "json, human, or auto: human on a terminal, else json (default auto)",
        value="FORMAT",
    ),
    Flag(
        "zap-log-level",
        "debug, info, warning, error, or a number: 1 or more means debug",
        value="LEVEL",
    ),
    Flag("zap-encoder", "json or console (human); --log-format overrides it", value="FORMAT"),
)

OTHER = (
    Flag("help", "show this help", short="h"),
    Flag("version", "show the version"),
)

# Flags of klog, glog, controller-runtime's logger and upstream's metrics server.
IGNORED = (
    *(
        Flag(name, ignored=True)
        for name in (
            "add-dir-header", "alsologtostderr", "legacy-stderr-threshold-behavior", "logtostderr",
            "one-output", "skip-headers", "skip-log-headers", "enable-http2", "metrics-secure",
            "zap-devel",
        )
    ),
    *(
        Flag(name, value="VALUE", ignored=True)
        for name in (
            "log-backtrace-at", "log-dir", "log-file", "log-file-max-size", "log-flush-frequency",
            "stderrthreshold", "vmodule", "metrics-cert-path", "metrics-cert-name",
            "metrics-cert-key", "zap-stacktrace-level", "zap-time-encoding",
        )
    ),
)  # fmt: skip

# Earlier releases accepted these flags in the controller, where they never had an effect.
IGNORED_BY_CONTROLLER = tuple(Flag(flag.name, value="VALUE", ignored=True) for flag in RECHECKS)

WITHOUT_EFFECT = "Accepted for compatibility, without effect"

type Groups = Mapping[str, Sequence[Flag]]

SIDECAR: Groups = {
    "Driver": DRIVER,
    "Secrets": SECRETS,
    "Retries": (*RETRIES, *RECHECKS),
    "Cluster": CLUSTER,
    "Observability": (*OBSERVABILITY, *TRACES),
    "Logs": LOGS,
    "Other": OTHER,
    WITHOUT_EFFECT: IGNORED,
}

CONTROLLER: Groups = {
    "Cluster": CLUSTER,
    "Observability": (*OBSERVABILITY, *TRACES),
    "Logs": LOGS,
    "Other": OTHER,
    WITHOUT_EFFECT: (*IGNORED, *IGNORED_BY_CONTROLLER),
}
