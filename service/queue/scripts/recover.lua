-- Take over up to ``room`` rows of jobs whose workers were silent for ``lease_ms`` → entries of each stream.
-- Our own slow renewals are no loss: ``ours`` are the entries that the worker holds, each as stream and id.
local left, found, skipped = tonumber(room), {}, {}
for _, entry in ipairs(ours) do
  skipped[entry] = true
end
for index, stream in ipairs(STREAMS) do
  found[index] = {}
  local pending = left > 0 and redis.call('XPENDING', stream, group, 'IDLE', lease_ms, '-', '+', left + #ours) or {}
  for _, row in ipairs(pending) do
    local rows = rows_of(redis.call('XRANGE', stream, row[1], row[1])[1])
    if not skipped[stream .. ' ' .. row[1]] and left > 0 and (rows <= left or left == tonumber(room)) then
      local taken = redis.call('XCLAIM', stream, group, worker, lease_ms, row[1])
      if taken[1] then
        table.insert(found[index], taken[1])
        left = left - rows
      end
    end
  end
end
return found
