import java.io.BufferedReader;
import java.io.FileReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.flume.Event;
import org.apache.flume.api.RpcClient;
import org.apache.flume.api.RpcClientFactory;
import org.apache.flume.event.EventBuilder;

/**
 * A user of Flume's SDK that does as it is told: each line of standard input is a call, each line of
 * standard output says what came of it.
 *
 * <p>The argument names a file of client properties. A call is {@code append} or {@code batch} and
 * its events, all between spaces. An event is its body in hexadecimal, followed by {@code ,name=value}
 * for each header, both in hexadecimal too. The answer is {@code ok}, or {@code failed} and the
 * exceptions. A client that failed is closed, and the next call is made by a new one, as the SDK's
 * guide says.
 */
public final class Client {
  private final Properties properties;
  private RpcClient client;

  private Client(Properties properties) {
    this.properties = properties;
  }

  public static void main(String[] arguments) throws IOException {
    Properties properties = new Properties();
    try (FileReader file = new FileReader(arguments[0], StandardCharsets.UTF_8)) {
      properties.load(file);
    }
    Client user = new Client(properties);
    BufferedReader calls =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
    System.out.println("ready");
    for (String call = calls.readLine(); call != null; call = calls.readLine()) {
      System.out.println(user.answer(call));
    }
    user.close();
    // A client may leave threads behind that are no daemons.
    System.exit(0);
  }

  private String answer(String call) {
    try {
      execute(call);
      return "ok";
    } catch (Exception error) {
      close();
      return "failed " + causes(error);
    }
  }

  private void execute(String call) throws Exception {
    if (client == null || !client.isActive()) {
      close();
      client = RpcClientFactory.getInstance(properties);
    }
    String[] words = call.split(" ");
    List<Event> events = new ArrayList<>();
    for (int at = 1; at < words.length; at++) {
      events.add(event(words[at]));
    }
    if (words[0].equals("append")) {
      client.append(events.get(0));
    } else {
      client.appendBatch(events);
    }
  }

  private void close() {
    if (client != null) {
      client.close();
      client = null;
    }
  }

  private static Event event(String word) {
    String[] parts = word.split(",", -1);
    Map<String, String> headers = new HashMap<>();
    for (int at = 1; at < parts.length; at++) {
      String[] pair = parts[at].split("=", -1);
      headers.put(text(pair[0]), text(pair[1]));
    }
    return EventBuilder.withBody(bytes(parts[0]), headers);
  }

  private static String text(String hex) {
    return new String(bytes(hex), StandardCharsets.UTF_8);
  }

  private static byte[] bytes(String hex) {
    byte[] bytes = new byte[hex.length() / 2];
    for (int at = 0; at < bytes.length; at++) {
      bytes[at] = (byte) Integer.parseInt(hex.substring(2 * at, 2 * at + 2), 16);
    }
    return bytes;
  }

  private static String causes(Throwable error) {
    StringBuilder text = new StringBuilder();
    for (Throwable cause = error; cause != null; cause = cause.getCause()) {
      text.append(text.length() == 0 ? "" : ": ").append(cause);
    }
    return text.toString().replace('\n', ' ');
  }
}
