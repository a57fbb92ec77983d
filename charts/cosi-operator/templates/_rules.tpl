{{/* Made by hack/update-charts from deploy/rbac: do not edit. */}}

{{- define "cosi-operator.rules.controller.ClusterRole" -}}
# update: a repetition increases the count
- apiGroups: [""]
  resources: [events]
  verbs: [create, update]
- apiGroups: [objectstorage.k8s.io]
  resources: [bucketaccessclasses]
  verbs: [list, watch]
# delete: the accesses of a bucket are deleted first
- apiGroups: [objectstorage.k8s.io]
  resources: [bucketaccesses]
  verbs: [delete, get, list, update, watch]
- apiGroups: [objectstorage.k8s.io]
  resources: [bucketaccesses/status, bucketclaims/status]
  verbs: [update]
- apiGroups: [objectstorage.k8s.io]
  resources: [bucketclaims]
  verbs: [get, list, update, watch]
- apiGroups: [objectstorage.k8s.io]
  resources: [bucketclasses]
  verbs: [get, list, watch]
- apiGroups: [objectstorage.k8s.io]
  resources: [buckets]
  verbs: [create, delete, get, list, update, watch]
{{- end -}}

{{- define "cosi-operator.rules.controller.Role" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create, get, update]
{{- end -}}

{{- define "cosi-operator.rules.sidecar.ClusterRole" -}}
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

{{- define "cosi-operator.rules.sidecar.Role" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create, get, update]
{{- end -}}
