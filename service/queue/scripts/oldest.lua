-- Age in ms of the oldest entry that no worker has read, per stream; 0 when all are read.
-- The first half of an entry's id is the Redis time at which it was added. A cancelled job's entry counts until read.
local time = redis.call('TIME')
local now, ages = time[1] * 1000 + math.floor(time[2] / 1000), {}
for index, stream in ipairs(STREAMS) do
  local first = unread(stream, group, 1)[1]
  ages[index] = first and now - tonumber(string.match(first[1], '^%d+')) or 0
end
return ages
