"""uWebSockets by its Python binding: /subscribe/TAG hears what is sent to /publish/TAG, /echo sends back. Publishing is one call
into the C++ library, whose own topic tree does the rest."""
import sys

from socketify import App, AppListenOptions, CompressOptions, OpCode

IDLE_SECONDS = 120
BACKPRESSURE_BYTES = 16 << 20


def upgrade(kind):
    def upgraded(response, request, context):
        response.upgrade(
            request.get_header("sec-websocket-key"),
            request.get_header("sec-websocket-protocol"),
            request.get_header("sec-websocket-extensions"),
            context,
            {"kind": kind, "tag": request.get_parameter(0) if kind != "echo" else ""},
        )

    return upgraded


def opened(socket):
    data = socket.get_user_data()
    if data["kind"] == "subscribe":
        socket.subscribe(data["tag"])


def main():
    app = App()

    def message(socket, text, _opcode):
        data = socket.get_user_data()
        if data["kind"] == "publish":
            app.publish(data["tag"], text, OpCode.TEXT, False)
        else:
            socket.send(text, OpCode.TEXT)

    for kind, path in [("subscribe", "/subscribe/:tag"), ("publish", "/publish/:tag"), ("echo", "/echo")]:
        behaviour = {
            "compression": CompressOptions.DISABLED,
            "max_payload_length": 1 << 20,
            "idle_timeout": IDLE_SECONDS,
            "max_backpressure": BACKPRESSURE_BYTES,
            "upgrade": upgrade(kind),
            "open": opened,
            "message": message,
        }
        app.ws(path, behaviour)
    app.listen(AppListenOptions(port=int(sys.argv[1]), host="127.0.0.1"), lambda _: None)
    app.run()


main()
