import static org.codelibs.opensearch.runner.OpenSearchRunner.newConfigs;

import org.codelibs.opensearch.runner.OpenSearchRunner;

/** One OpenSearch node that runs until it is killed: java -cp 'lib/*' Start.java FOLDER SETTING=VALUE... */
public class Start {
    public static void main(String[] arguments) throws Exception {
        var configs = newConfigs().basePath(arguments[0]).clusterName("refdesk").numOfNode(1).disableESLogger();
        new OpenSearchRunner()
                .onBuild((number, settings) -> {
                    for (int i = 1; i < arguments.length; i++) {
                        var pair = arguments[i].split("=", 2);
                        settings.put(pair[0], pair[1]);
                    }
                })
                .build(configs);
        Thread.currentThread().join();
    }
}
