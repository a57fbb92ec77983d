{{/*
For a driver's chart. Its Chart.yaml lists this library with `alias: cosiSidecar`, and its values
for the sidecar stand below that name. All templates but cosi-sidecar.manifests take the root (`.`).

  cosi-sidecar.containers          list item for spec.containers
  cosi-sidecar.volumes             list items for spec.volumes
  cosi-sidecar.driverVolumeMounts  list item for the driver's own container
  cosi-sidecar.podAnnotations      annotations for the pod template
  cosi-sidecar.manifests           whole objects, in a separate file; takes a dict with
                                   context (the root), serviceAccountName, and selectorLabels
                                   (a YAML text, only for the PodMonitor)
*/}}

{{- define "cosi-sidecar.values" -}}
{{- if not (hasKey .Values "cosiSidecar") -}}
{{- fail "cosi-sidecar-lib: list it in Chart.yaml under dependencies with `alias: cosiSidecar`" -}}
{{- end -}}
{{- toYaml .Values.cosiSidecar -}}
{{- end -}}

{{- define "cosi-sidecar.fullname" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}-cosi-sidecar
{{- end -}}

{{/* Labels of every object; the value metrics.podMonitor.labels can't have one of them. */}}
{{- define "cosi-sidecar.labels" -}}
app.kubernetes.io/name: cosi-sidecar
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: sidecar
app.kubernetes.io/part-of: cosi-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "cosi-sidecar.image" -}}
{{- $image := .Values.cosiSidecar.image -}}
{{- with default $image.registry (.Values.cosiSidecar.global).imageRegistry -}}
{{ . }}/
{{- end -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default .Subcharts.cosiSidecar.Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- define "cosi-sidecar.containers" -}}
{{- $v := include "cosi-sidecar.values" . | fromYaml -}}
{{- if and $v.metrics.enabled $v.healthProbe.enabled (eq (int $v.metrics.port) (int $v.healthProbe.port)) -}}
{{- fail (printf "cosiSidecar.metrics.port and cosiSidecar.healthProbe.port are both %d. Set one of them to another port." (int $v.metrics.port)) -}}
{{- end -}}
- name: cosi-sidecar
  image: {{ include "cosi-sidecar.image" . }}
  imagePullPolicy: {{ $v.image.pullPolicy }}
  command: [/sidecar]
  args:
    - --driver-addr=unix://{{ $v.socketDir }}/cosi.sock
    - --driver-call-timeout={{ $v.driverCallTimeout }}
    - --secret-extra-keys={{ $v.secretExtraKeys }}
    {{- with $v.serializeAccessCalls }}
    - --serialize-access-calls={{ . }}
    {{- end }}
    {{- with $v.retryPolicy }}
    - --retry-policy={{ . }}
    {{- end }}
    {{- range $v.retryOverrides }}
    - {{ printf "--retry-override=%s" . | quote }}
    {{- end }}
    {{- if $v.retryPolicyFile }}
    - --retry-policy-file=/etc/cosi-sidecar/policy.yaml
    {{- end }}
    - --terminal-recheck-interval={{ $v.terminalRecheckInterval }}
    - --deletion-recheck-interval={{ $v.deletionRecheckInterval }}
    {{- if $v.metrics.enabled }}
    - --metrics-bind-address={{ $v.metrics.host }}:{{ $v.metrics.port }}
    {{- end }}
    {{- if $v.healthProbe.enabled }}
    - --health-probe-bind-address={{ $v.healthProbe.host }}:{{ $v.healthProbe.port }}
    {{- end }}
    - --zap-log-level={{ $v.logLevel }}
    - --log-format={{ $v.logFormat }}
    - --workers={{ $v.workers }}
    {{- range $v.extraArgs }}
    - {{ . | quote }}
    {{- end }}
  env:
    - name: POD_NAMESPACE
      valueFrom:
        fieldRef:
          fieldPath: metadata.namespace
    {{- with $v.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if or $v.metrics.enabled $v.healthProbe.enabled }}
  ports:
    {{- if $v.metrics.enabled }}
    - name: cosi-metrics
      containerPort: {{ $v.metrics.port }}
    {{- end }}
    {{- if $v.healthProbe.enabled }}
    - name: cosi-health
      containerPort: {{ $v.healthProbe.port }}
    {{- end }}
  {{- end }}
  {{- if $v.healthProbe.enabled }}
  {{- with $v.startupProbe }}
  startupProbe:
    httpGet:
      path: /startupz
      port: cosi-health
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.livenessProbe }}
  livenessProbe:
    httpGet:
      path: /healthz
      port: cosi-health
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.readinessProbe }}
  readinessProbe:
    httpGet:
      path: /readyz
      port: cosi-health
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  resources:
    {{- toYaml $v.resources | nindent 4 }}
  securityContext:
    {{- toYaml $v.securityContext | nindent 4 }}
  volumeMounts:
    - name: cosi-socket
      mountPath: {{ $v.socketDir }}
    {{- if $v.retryPolicyFile }}
    - name: cosi-policy
      mountPath: /etc/cosi-sidecar
      readOnly: true
    {{- end }}
    {{- with $v.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "cosi-sidecar.volumes" -}}
{{- $v := include "cosi-sidecar.values" . | fromYaml -}}
- name: cosi-socket
  emptyDir: {}
{{- if $v.retryPolicyFile }}
- name: cosi-policy
  configMap:
    name: {{ include "cosi-sidecar.fullname" . }}-policy
{{- end }}
{{- end -}}

{{- define "cosi-sidecar.driverVolumeMounts" -}}
{{- $v := include "cosi-sidecar.values" . | fromYaml -}}
- name: cosi-socket
  mountPath: {{ $v.socketDir }}
{{- end -}}

{{/* The sidecar reads its policy at start, so a changed one has to make new pods. */}}
{{- define "cosi-sidecar.podAnnotations" -}}
cosi.objectstorage.k8s.io/policy-checksum: {{ .Values.cosiSidecar.retryPolicyFile | sha256sum }}
{{- end -}}

{{- define "cosi-sidecar.manifests" -}}
{{- if not .serviceAccountName -}}
{{- fail "cosi-sidecar.manifests: give it (dict \"context\" . \"serviceAccountName\" ...)" -}}
{{- end -}}
{{- $v := include "cosi-sidecar.values" .context | fromYaml -}}
{{- if $v.rbac.create }}
{{ include "cosi-sidecar.rbac" . }}
{{- end }}
{{- if $v.retryPolicyFile }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "cosi-sidecar.fullname" .context }}-policy
  namespace: {{ .context.Release.Namespace }}
  labels:
    {{- include "cosi-sidecar.labels" .context | nindent 4 }}
data:
  policy.yaml: |
    {{- $v.retryPolicyFile | nindent 4 }}
{{- end }}
{{- if $v.metrics.podMonitor.enabled }}
{{- if not .selectorLabels }}
{{- fail "cosiSidecar.metrics.podMonitor.enabled: this driver's chart gives cosi-sidecar.manifests no selectorLabels" }}
{{- end }}
---
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ include "cosi-sidecar.fullname" .context }}
  namespace: {{ default .context.Release.Namespace $v.metrics.podMonitor.namespace }}
  labels:
    {{- $labels := include "cosi-sidecar.labels" .context }}
    {{- $labels | nindent 4 }}
    {{- range $key, $_ := $v.metrics.podMonitor.labels }}
    {{- if hasKey ($labels | fromYaml) $key }}
    {{- fail (printf "cosiSidecar.metrics.podMonitor.labels: the chart itself sets the label %s. Remove that key from the value." $key) }}
    {{- end }}
    {{- end }}
    {{- with $v.metrics.podMonitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- if $v.metrics.podMonitor.namespace }}
  namespaceSelector:
    matchNames: [{{ .context.Release.Namespace }}]
  {{- end }}
  selector:
    matchLabels:
      {{- .selectorLabels | nindent 6 }}
  podMetricsEndpoints:
    - port: cosi-metrics
      {{- with $v.metrics.podMonitor }}
      interval: {{ .interval }}
      {{- with .scrapeTimeout }}
      scrapeTimeout: {{ . }}
      {{- end }}
      {{- if .honorLabels }}
      honorLabels: true
      {{- end }}
      relabelings:
        # The alerts and the dashboard find our series by this label.
        - targetLabel: cosi_process
          replacement: sidecar
        {{- with .relabelings }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .metricRelabelings }}
      metricRelabelings:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- end }}
{{- end }}
{{- end -}}

{{- define "cosi-sidecar.rbac" -}}
{{- $v := include "cosi-sidecar.values" .context | fromYaml -}}
{{- $name := include "cosi-sidecar.fullname" .context -}}
{{- $own := printf "%s-%s" .context.Release.Namespace $name -}}
{{- if not $v.rbac.existingClusterRole }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $own }}
  labels:
    {{- include "cosi-sidecar.labels" .context | nindent 4 }}
rules:
  {{- include "cosi-sidecar.rules.ClusterRole" .context | nindent 2 }}
{{- end }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $own }}
  labels:
    {{- include "cosi-sidecar.labels" .context | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ default $own $v.rbac.existingClusterRole }}
subjects:
  - kind: ServiceAccount
    name: {{ .serviceAccountName }}
    namespace: {{ .context.Release.Namespace }}
---
# The Lease of leader election.
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ .context.Release.Namespace }}
  labels:
    {{- include "cosi-sidecar.labels" .context | nindent 4 }}
rules:
  {{- include "cosi-sidecar.rules.Role" .context | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ .context.Release.Namespace }}
  labels:
    {{- include "cosi-sidecar.labels" .context | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ .serviceAccountName }}
    namespace: {{ .context.Release.Namespace }}
{{- end -}}
