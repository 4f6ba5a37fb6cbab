-- Deliver up to ``room`` unread entries to a worker of a group → {entries of each stream, its newest id}.
-- The most urgent stream first. Nothing can come between the two answers: who waits for newer ids misses none.
local left, delivered, newest = tonumber(room), {}, {}
for index, stream in ipairs(STREAMS) do
  local read = left > 0
    and redis.call('XREADGROUP', 'GROUP', group, worker, 'COUNT', left, 'STREAMS', stream, '>')
  delivered[index] = read and read[1][2] or {}
  left = left - #delivered[index]
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  newest[index] = last and last[1] or '0-0'
end
return {delivered, newest}
