{{- define "cosi-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* 52 characters, so that the longest ending (-controller) fits into a label's 63. */}}
{{- define "cosi-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "cosi-operator.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "cosi-operator.controllerName" -}}
{{- if .Values.controllerName -}}
{{- .Values.controllerName -}}
{{- else -}}
{{ include "cosi-operator.fullname" . }}-controller
{{- end -}}
{{- end -}}

{{- define "cosi-operator.sidecarName" -}}
{{ include "cosi-operator.fullname" . }}-sidecar
{{- end -}}

{{- define "cosi-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "cosi-operator.controllerName" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* What tells the controller's pods from all others; it can't be changed by an upgrade. */}}
{{- define "cosi-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "cosi-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end -}}

{{/* Labels of every object. Call with a dict: context (the root), component (may be ""). */}}
{{- define "cosi-operator.labels" -}}
{{- with .context -}}
app.kubernetes.io/name: {{ include "cosi-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- with $.component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
app.kubernetes.io/part-of: cosi-operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "cosi-operator.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}
