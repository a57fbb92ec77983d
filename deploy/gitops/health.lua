-- How Argo CD sees a BucketClaim, a BucketAccess or a Bucket. Without conditions (a cluster with
-- upstream's CRDs) only "ready or not yet" can be told.
local status = obj.status or {}
local generation = obj.metadata.generation or 0

local function condition(kind)
  for _, found in ipairs(status.conditions or {}) do
    if found.type == kind then return found end
  end
  return {}
end

local ready = condition("Ready")
local stalled = condition("Stalled")

if status.conditions == nil then
  if status.bucketReady or status.accessGranted then
    return { status = "Healthy", message = "" }
  end
  return { status = "Progressing", message = "Waiting for the operator" }
end
if (status.observedGeneration or 0) < generation then
  return { status = "Progressing", message = "Waiting for the operator to see the change" }
end
if stalled.status == "True" then
  return { status = "Degraded", message = stalled.reason .. ": " .. stalled.message }
end
if ready.status == "True" then
  return { status = "Healthy", message = ready.message or "" }
end
return { status = "Progressing", message = (ready.reason or "") .. ": " .. (ready.message or "") }
