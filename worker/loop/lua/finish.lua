-- Write down how jobs ended, in order; only the holder of a job may.
--
-- Safe to send twice: what a first sending did, the second no longer holds.
--
-- KEYS: the queues of these jobs
-- ARGV: worker, then per job: the number of its queue, id, try, kind, value, ttl_ms, keep_ms
--   kind 'done':  value is the result ('' for none), ttl_ms its lifetime (0: forever)
--   kind 'again': value is the score at which it is due again
--   kind 'back':  the same, and the try does not count
--   kind 'unrun': the same, of a suspect that never ran: how often processes died is kept
--   keep_ms: how long the in-progress key outlives the job (0: not at all)
-- Returns the ids of jobs that another worker holds by now. An end is written down even where the
-- queue has become another type of key.
local worker = ARGV[1]
local refused = {}

local function store_result(id, result, ttl_ms, only_if_absent)
  if result == '' then
    return
  end
  local command = {'SET', RESULT .. id, result}
  if ttl_ms ~= '0' then
    command[#command + 1] = 'PX'
    command[#command + 1] = ttl_ms
  end
  if only_if_absent then
    command[#command + 1] = 'NX'
  end
  redis.call(unpack(command))
end

-- Delete a job's lease, and with it the keys that do not outlive the run.
local function release(id, keep_ms, ...)
  if keep_ms == '0' then
    redis.call('DEL', IN_PROGRESS .. id, ...)
  else
    redis.call('DEL', ...)
    -- Not the worker's name: no worker holds the job any more, but it must not run again yet.
    redis.call('SET', IN_PROGRESS .. id, 'ended', 'PX', keep_ms)
  end
end

for i = 2, #ARGV, 7 do
  local queue, id, try, kind = KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local value, ttl_ms, keep_ms = ARGV[i + 4], ARGV[i + 5], ARGV[i + 6]
  local mine, holder = holds(worker, id, try)
  if mine and kind == 'done' then
    store_result(id, value, ttl_ms, false)
    read('ZREM', queue, id)
    read('ZREM', ABORTS, id)
    release(id, keep_ms, JOB .. id, RETRY .. id, UNKNOWN .. id, CLAIMS .. id)
  elseif mine then
    redis.call('ZADD', queue, 'XX', value, id)
    if kind ~= 'again' then
      give_back_try(id)
    end
    if kind == 'unrun' then
      redis.call('DEL', IN_PROGRESS .. id)
    else
      release(id, keep_ms, CLAIMS .. id)
    end
  elseif kind == 'done' and not holder and not read('ZSCORE', queue, id) then
    -- The queue has forgotten the job (a flush). A client may still wait for the result.
    store_result(id, value, ttl_ms, true)
  else
    refused[#refused + 1] = id
  end
end
return refused
