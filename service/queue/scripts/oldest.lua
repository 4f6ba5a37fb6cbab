-- Age in ms of the oldest entry that no worker has read, per stream; 0 when all are read.
-- The first half of an entry's id is the Redis time at which it was added. A cancelled job's entry counts until read.
local time = redis.call('TIME')
local now, ages = time[1] * 1000 + math.floor(time[2] / 1000), {}
for index, stream in ipairs(STREAMS) do
  local last = '0-0'
  local groups = redis.call('EXISTS', stream) == 1 and redis.call('XINFO', 'GROUPS', stream) or {}
  for _, row in ipairs(groups) do
    for field = 1, #row, 2 do
      last = row[field] == 'last-delivered-id' and row[field + 1] or last
    end
  end
  local unread = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)[1]
  ages[index] = unread and now - tonumber(string.match(unread[1], '^%d+')) or 0
end
return ages
