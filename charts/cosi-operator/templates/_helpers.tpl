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

{{/* The namespace of all objects that have one. */}}
{{- define "cosi-operator.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{/*
Labels of every object. Call with a dict:
  context    the root
  component  may be ""
  field      optional: the name of a value that holds further labels
  extra      the labels in that value; for a key that commonLabels has too, this one counts
Each key is rendered once, because a label that the chart itself sets is refused in a value.
*/}}
{{- define "cosi-operator.labels" -}}
{{- $extra := dict -}}
{{- range $key, $label := .context.Values.commonLabels -}}
{{- include "cosi-operator.checkLabel" (dict "field" "commonLabels" "key" $key) -}}
{{- $_ := set $extra $key $label -}}
{{- end -}}
{{- range $key, $label := .extra -}}
{{- include "cosi-operator.checkLabel" (dict "field" $.field "key" $key) -}}
{{- $_ := set $extra $key $label -}}
{{- end -}}
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
{{- with $extra }}
{{ toYaml . }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "cosi-operator.checkLabel" -}}
{{- $ours := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" -}}
{{- $ours = concat $ours (list "app.kubernetes.io/part-of" "app.kubernetes.io/version") -}}
{{- $ours = concat $ours (list "app.kubernetes.io/managed-by" "helm.sh/chart") -}}
{{/* With a label of this kind on every object, tenants would get the rights of the controller. */}}
{{- if hasPrefix "rbac.authorization.k8s.io/aggregate-to-" .key -}}
{{- fail (printf "%s: the label %s would give the rights of the controller to tenants. Remove that key from %s." .field .key .field) -}}
{{- end -}}
{{- if has .key $ours -}}
{{- fail (printf "%s: the chart itself sets the label %s. Remove that key from %s." .field .key .field) -}}
{{- end -}}
{{- end -}}

{{/* Values that the schema accepts one by one, and that exclude each other. */}}
{{- define "cosi-operator.checkValues" -}}
{{- if and .Values.metrics.enabled (eq (int .Values.metrics.port) (int .Values.healthProbe.port)) -}}
{{- fail (printf "metrics.port and healthProbe.port are both %d. Set one of them to another port." (int .Values.metrics.port)) -}}
{{- end -}}
{{- with .Values.podDisruptionBudget -}}
{{- $unset := list "" "<nil>" -}}
{{- if not (or (has (toString .minAvailable) $unset) (has (toString .maxUnavailable) $unset)) -}}
{{- fail "podDisruptionBudget.minAvailable and podDisruptionBudget.maxUnavailable are both set. Set one of them to \"\"." -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "cosi-operator.image" -}}
{{- with .Values.image -}}
{{- with default .registry ($.Values.global).imageRegistry -}}
{{ . }}/
{{- end -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}
