-- Put in front of every script that must work at any fill of Redis, such as one that ends a job and makes room.
-- At maxmemory Redis refuses a script's writes only until it has written something that needs no memory.
redis.call('DEL', '{vqd}:nothing')
