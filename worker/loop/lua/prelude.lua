-- arq's names, filled in from arq.constants; every script of the loop starts with these lines.
local JOB, IN_PROGRESS, RETRY = '{job}', '{in_progress}', '{retry}'
local RESULT, ABORTS, UNKNOWN = '{result}', '{aborts}', '{unknown}'
-- What a stock arq worker writes where this loop writes its own id.
local STOCK = '1'
-- arq's own lifetime of a try counter.
local RETRY_TTL_S = 88400

-- Milliseconds by Redis' clock, rounded as arq's clients round theirs: a job enqueued "now" is due.
local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor((tonumber(time[2]) + 500) / 1000)
end

-- Whether `worker`, who counted `try` when it claimed, still holds the job. A lease that lapsed is
-- still its own while no other claim has counted a try since.
local function holds(worker, id, try)
  local holder = redis.call('GET', IN_PROGRESS .. id)
  if holder then
    return holder == worker, holder
  end
  return redis.call('GET', RETRY .. id) == try, holder
end

local function give_back_try(id)
  if redis.call('DECR', RETRY .. id) <= 0 then
    redis.call('DEL', RETRY .. id)
  end
end
