{{/* Made by hack/update-charts from deploy/rbac: do not edit. */}}

{{- define "cosi-sidecar.rules.ClusterRole" -}}
- apiGroups: [objectstorage.k8s.io]
  resources: [buckets, bucketclaims]
  verbs: [get, list, watch, update]
# delete: the accesses of a Bucket go when it goes
- apiGroups: [objectstorage.k8s.io]
  resources: [bucketaccesses]
  verbs: [get, list, watch, update, delete]
- apiGroups: [objectstorage.k8s.io]
  resources: [buckets/status, bucketclaims/status, bucketaccesses/status]
  verbs: [update]
- apiGroups: [objectstorage.k8s.io]
  resources: [bucketaccessclasses]
  verbs: [list, watch]
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
