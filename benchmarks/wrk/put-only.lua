-- A key for each user; each repeats PUT value=1 to PUT value=100.
--
--   ENDPOINTS=http://127.0.0.1:8001,http://127.0.0.1:8002,http://127.0.0.1:8003 \
--     wrk -t3 -c96 -d10s --latency -s benchmarks/wrk/put-only.lua http://127.0.0.1:8001

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or ""
local users = dofile(here .. "users.lua")

users.with_own_keys("put-only", users.PUTS)
