{{/* Made by hack/update-charts from deploy/rbac: do not edit. */}}

{{- define "cosi-sidecar.rules.ClusterRole" -}}
# update: a repetition increases the count
- apiGroups: [""]
  resources: [events]
  verbs: [create, update]
# update: new keys of a rotation; removal of our finalizer
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, delete, get, update]
- apiGroups: [objectstorage.k8s.io]
  resources: [bucketaccessclasses]
  verbs: [list, watch]
# delete: the accesses of a bucket are deleted first
- apiGroups: [objectstorage.k8s.io]
  resources: [bucketaccesses]
  verbs: [delete, get, list, update, watch]
- apiGroups: [objectstorage.k8s.io]
  resources: [bucketaccesses/status, bucketclaims/status, buckets/status]
  verbs: [update]
- apiGroups: [objectstorage.k8s.io]
  resources: [bucketclaims, buckets]
  verbs: [get, list, update, watch]
{{- end -}}

{{- define "cosi-sidecar.rules.Role" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create, get, update]
{{- end -}}
