-- GETs with quorum=true of the keys get-quorum-1 to get-quorum-100.  The keys must be there; `python -m
-- benchmarks` writes them before it measures, by hand:
--
--   for i in $(seq 100); do curl -X PUT -d value=$i http://127.0.0.1:8001/v2/keys/get-quorum-$i; done
--   ENDPOINTS=http://127.0.0.1:8001,http://127.0.0.1:8002,http://127.0.0.1:8003 \
--     wrk -t3 -c96 -d10s --latency -s benchmarks/wrk/get-quorum.lua http://127.0.0.1:8001

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or ""
local users = dofile(here .. "users.lua")

users.reading("get-quorum", 100, "?quorum=true")
