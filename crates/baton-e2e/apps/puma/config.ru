# Every path answers alike; `ms` says how long that takes.

require "json"
require "rack"

run lambda { |env|
  request = Rack::Request.new(env)
  received = request.body.read.bytesize
  sleep(request.GET.fetch("ms", "0").to_i / 1000.0) # the work that a request costs
  body = JSON.generate(
    release: ENV.fetch("BATON_RELEASE", "none"), pid: Process.pid, bytes: received,
    conn: env["HTTP_X_CONN"], seq: env["HTTP_X_SEQ"]
  )
  [200, { "content-type" => "application/json", "content-length" => body.bytesize.to_s }, [body]]
}
