-- End a running job: store what it leaves, then acknowledge → 'done' | 'late' | 'stale'.
-- ``failure`` (a messages.Failure) and ``result`` are '' where there is none; ``files`` are the encoded pictures.
local present, now = unpack(redis.call('HMGET', JOB, 'epoch', 'status'))
-- How much of Redis the owner's pictures take, and until when.
local function keep_count(owner)
  local bytes, results, used = 0, owned(owner, 'results'), owned(owner, 'used')
  for _, file in ipairs(files) do
    bytes = bytes + #file
  end
  redis.call('ZADD', results, integer(now_ms() + result_ttl_s * 1000), id .. ' ' .. bytes)
  redis.call('HINCRBY', used, 'bytes', bytes)
  keep_for(results, result_ttl_s)
  keep_for(used, result_ttl_s)
end

-- The same end by the same worker again: its reply was lost.
if present == epoch and now == status then
  return 'done'
end
if not holds(epoch) then
  return 'stale'
end
-- However short the job: what is not there by its deadline does not count, as when a report finds it late.
if status == 'succeeded' and late() then
  fail_late()
  remove(entry)
  return 'late'
end

if result ~= '' then
  redis.call('HSET', JOB, 'result', result)
end
for index, file in ipairs(files) do
  redis.call('HSET', IMAGES, index - 1, file)
end
redis.call('EXPIRE', IMAGES, result_ttl_s)
local owner = redis.call('HGET', JOB, 'owner')
if owner then
  keep_count(owner)
end
finish(status, failure ~= '' and failure or nil)
remove(entry)
return 'done'
