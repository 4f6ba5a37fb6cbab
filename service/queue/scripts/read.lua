-- Deliver up to ARGV[3] unread entries to worker ARGV[2] of group ARGV[1] → {entries of each stream, its newest id}.
-- KEYS streams, the most urgent first. Nothing can come between the two answers: who waits for newer ids misses none.
local room, delivered, newest = tonumber(ARGV[3]), {}, {}
for index, stream in ipairs(KEYS) do
  local read = room > 0
    and redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', room, 'STREAMS', stream, '>')
  delivered[index] = read and read[1][2] or {}
  room = room - #delivered[index]
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  newest[index] = last and last[1] or '0-0'
end
return {delivered, newest}
