-- Claim due jobs for one worker: who they are, their bodies and try numbers, in one round trip.
--
-- A claimed job leaves the head of the queue: its score becomes the end of its lease. So a claim
-- reads as many members as there are free slots, however many jobs run in the fleet, and a job
-- whose worker died is due again by itself.
--
-- KEYS: queue, bell
-- ARGV: worker, lease_ms, want, read_aborts (1 or 0), passed_max, [id ...] to claim only these
local queue, bell = KEYS[1], KEYS[2]
local worker, lease_ms, want = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local read_aborts, passed_max = ARGV[4] == '1', tonumber(ARGV[5])
local now = now_ms()
-- now, next due score (or 0), whether more is due; then per job: id, body, try, score, aborted at
local reply = {now, 0, 0}

local function take(id, score)
  redis.call('SET', IN_PROGRESS .. id, worker, 'PX', lease_ms)
  redis.call('ZADD', queue, 'XX', now + lease_ms, id)
  local try = redis.call('INCR', RETRY .. id)
  redis.call('EXPIRE', RETRY .. id, RETRY_TTL_S)
  -- The abort stays until the job's end is stored.
  local aborted = read_aborts and redis.call('ZSCORE', ABORTS, id)
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3] = id, redis.call('GET', JOB .. id), try
  reply[n + 4], reply[n + 5] = score, aborted
end

if #ARGV > 5 then
  for i = 6, #ARGV do
    local score = redis.call('ZSCORE', queue, ARGV[i])
    if score and tonumber(score) <= now and redis.call('EXISTS', IN_PROGRESS .. ARGV[i]) == 0 then
      take(ARGV[i], score)
    end
  end
  return reply
end

-- Jobs that a stock arq worker runs stay where they are: it moves them by a difference to the score
-- it saw. They are stepped over, and only they.
local claimed, passed = 0, 0
while claimed < want and passed < passed_max do
  local due = redis.call(
    'ZRANGEBYSCORE', queue, '-inf', now, 'WITHSCORES', 'LIMIT', passed, want - claimed + passed)
  if #due == 0 then
    break
  end
  for i = 1, #due, 2 do
    if claimed == want then
      break
    end
    local id, score = due[i], due[i + 1]
    local holder = redis.call('GET', IN_PROGRESS .. id)
    if not holder then
      take(id, score)
      claimed = claimed + 1
    else
      local left = redis.call('PTTL', IN_PROGRESS .. id)
      if holder == STOCK or left <= 0 then
        passed = passed + 1
      else
        -- Back at the head while leased: an arq client aborts a job by giving it score 1.
        redis.call('ZADD', queue, 'XX', now + left, id)
      end
    end
  end
end

local more = redis.call('ZRANGEBYSCORE', queue, '-inf', now, 'LIMIT', passed, 1)
if #more > 0 then
  -- One ring wakes one worker; a worker that cannot take everything passes it on.
  redis.call('ZADD', bell, 0, 'ring')
  reply[3] = 1
else
  -- A ring follows the job it is for, so every ring until now has been answered.
  redis.call('DEL', bell)
  local next_due = redis.call(
    'ZRANGEBYSCORE', queue, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  reply[2] = next_due[2] or 0
end
return reply
