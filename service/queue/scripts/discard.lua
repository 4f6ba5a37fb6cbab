-- Move an entry that no worker of this version can read to the dead letters. It is no job, so nobody waits for it.
dead_letter('entry', entry, 'reason', reason, 'record', record)
redis.call('XACK', STREAM, group, entry)
redis.call('XDEL', STREAM, entry)
