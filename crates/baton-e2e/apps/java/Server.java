import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;

/** Every path answers alike; `ms` says how long that takes. */
public final class Server {
    /** How long running requests may take after SIGTERM. */
    private static final int DRAIN_SECONDS = 5;
    /** How long clients that keep their connection may still send a request, to be told to close it. */
    private static final int LAST_REQUEST_MS = 1_000;

    private static volatile boolean stopping;

    private static void work(HttpExchange exchange) throws IOException {
        int received = exchange.getRequestBody().readAllBytes().length;
        String query = exchange.getRequestURI().getQuery();
        try {
            Thread.sleep(query == null ? 0 : Long.parseLong(query.replace("ms=", ""))); // the work that a request costs
        } catch (InterruptedException cut) {
            Thread.currentThread().interrupt();
        }
        String answer = String.format(
            "{\"release\":\"%s\",\"pid\":%d,\"conn\":\"%s\",\"seq\":\"%s\",\"bytes\":%d}",
            System.getenv().getOrDefault("BATON_RELEASE", "none"), ProcessHandle.current().pid(),
            exchange.getRequestHeaders().getFirst("X-Conn"), exchange.getRequestHeaders().getFirst("X-Seq"), received);
        exchange.getResponseHeaders().set("Content-Type", "application/json");
        if (stopping) {
            exchange.getResponseHeaders().set("Connection", "close");
        }
        exchange.sendResponseHeaders(200, answer.length());
        exchange.getResponseBody().write(answer.getBytes());
        exchange.close();
    }

    private static void drain(HttpServer server) {
        stopping = true;
        try {
            Thread.sleep(LAST_REQUEST_MS);
        } catch (InterruptedException cut) {
            Thread.currentThread().interrupt();
        }
        server.stop(DRAIN_SECONDS);
    }

    public static void main(String[] arguments) throws IOException {
        int port = Integer.parseInt(System.getenv().getOrDefault("PORT", "8080"));
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", Server::work);
        server.start();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> drain(server)));
    }
}
