{{/* Made by hack/update-charts from deploy/rbac: do not edit. */}}

{{- define "cosi-sidecar.rules.ClusterRole" -}}
- apiGroups: [objectstorage.k8s.io]
  resources:
    - buckets
    - buckets/status
    - bucketclaims
    - bucketclaims/status
    - bucketaccesses
    - bucketaccesses/status
    - bucketaccessclasses
  verbs: [get, list, watch, update, create, delete]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, update, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [create, update]
{{- end -}}

{{- define "cosi-sidecar.rules.Role" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
{{- end -}}
