%% SPDX-License-Identifier: MIT
%% The rows of the performance table in Erlang/OTP. "main ROW VARIANT N" runs one and prints its figure as a JSON line;
%% "serve" is the other node of the network rows, and ends with its standard input.
-module(bench).
-behaviour(gen_server).
-export([main/1, serve/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(PORTS, 1000).
-define(CALLERS, 100).
-define(TEXT, binary:copy(<<"x">>, 64)).
-define(BLOCK, binary:copy(<<0>>, 65536)).
-define(SINK, {bench, 'peer@127.0.0.1'}).

%% --- a process of OTP that hands each message to a function ---

init(Function) -> {ok, Function}.
handle_call({add, Number}, _From, State) -> {reply, Number + 1, State}.
handle_cast(_Message, State) -> {noreply, State}.
handle_info(Message, Function) -> Function(Message), {noreply, Function}.

server(Function) -> server(Function, []).
server(Function, Options) ->
    {ok, Process} = gen_server:start(?MODULE, Function, [{spawn_opt, Options}]),
    Process.

%% A process of the language itself that does the same.
loop(Function) -> receive Message -> Function(Message), loop(Function) end.
process(Function) -> spawn(fun() -> loop(Function) end).

%% For floods: messages that wait on the heap, as usual, are copied by each collection, which took 100 times as long.
make("gen_server, off heap", Function) -> server(Function, [{message_queue_data, off_heap}]);
make("gen_server" ++ _, Function) -> server(Function);
make(_Variant, Function) -> process(Function).

%% --- the command line ---

main([Row, Variant, N]) ->
    io:put_chars([run(Row, Variant, list_to_integer(N)), "\n"]),
    halt(0).

serve() ->
    register(bench, server(fun served/1)),
    io:put_chars("ready\n"),
    io:get_line(""),
    halt(0).

%% --- rows in one node ---

run("L1", Variant, N) ->
    Main = self(),
    Process = make(Variant, fun(done) -> Main ! done; (_Number) -> ok end),
    timed(N, "messages/s", fun() ->
        repeat(N, fun(Number) -> Process ! Number end),
        Process ! done,
        await(done)
    end);
run(Row, Variant, N) when Row =:= "L2"; Row =:= "L3" ->
    Main = self(),
    Ponger = make(Variant, fun({Pinger, Left}) -> Pinger ! {self(), Left - 1} end),
    Pinger = make(Variant, fun({_, 0}) -> Main ! done; ({Other, Left}) -> Other ! {self(), Left} end),
    timed(N, "round trips/s", fun() -> Pinger ! {Ponger, N}, await(done) end);
run("L4", Variant, N) ->
    Main = self(),
    Hop = fun({next, Process}) -> put(next, Process); (0) -> Main ! done; (Left) -> get(next) ! Left - 1 end,
    Ring = [First | Others] = [make(Variant, Hop) || _ <- lists:seq(1, ?PORTS)],
    lists:foreach(fun({Process, Next}) -> Process ! {next, Next} end, lists:zip(Ring, Others ++ [First])),
    First ! ?PORTS,
    await(done),
    timed(N, "hops/s", fun() -> First ! N, await(done) end);
run("L5", _Variant, N) ->
    erlang:garbage_collect(),
    Before = erlang:memory(total),
    Started = now_ns(),
    Processes = [spawn(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, N)],
    Seconds = seconds_since(Started),
    Bytes = (erlang:memory(total) - Before) / length(Processes),
    json(N, "ports/s", Seconds, io_lib:format(", \"bytes_each\": ~.1f", [Bytes]));
run("L6", "chained", N) ->
    timed(N, "deaths/s", fun() -> repeat(N, fun(_) -> shoot(), await_death() end) end);
run("L6", "burst", N) ->
    timed(N, "deaths/s", fun() -> repeat(N, fun(_) -> shoot() end), repeat(N, fun(_) -> await_death() end) end);

%% --- rows between two nodes ---

run("N1", Variant, N) ->
    connect(),
    Main = self(),
    Round = fun() -> ?SINK ! {ping, self()}, receive pong -> ok end end,
    Round(),
    case Variant of
        "gen_server" ++ _ ->
            Pinger = server(fun(start) -> put(left, N), ?SINK ! {ping, self()};
                               (pong) -> case put(left, get(left) - 1) of
                                             1 -> Main ! done;
                                             _ -> ?SINK ! {ping, self()}
                                         end
                            end),
            timed(N, "network round trips/s", fun() -> Pinger ! start, await(done) end);
        _ ->
            timed(N, "network round trips/s", fun() -> repeat(N, fun(_) -> Round() end) end)
    end;
run("N2", _Variant, N) ->
    connect(),
    Text = ?TEXT,
    timed(N, "messages/s", fun() -> repeat(N, fun(Number) -> ?SINK ! {tag, Number, Text} end), acknowledged(N) end);
run("N5", Variant, N) ->
    run("N2", Variant, N);
run("S1", Variant, N) ->
    connect(),
    Block = binary:copy(<<0>>, list_to_integer(Variant)),
    Count = max(16, min(N, N * 2000 div byte_size(Block))),
    timed(Count, "messages/s", fun() ->
        repeat(Count, fun(_) -> ?SINK ! {block, Block} end),
        acknowledged(Count * byte_size(Block))
    end);
run("N3", _Variant, N) ->
    connect(),
    Block = ?BLOCK,
    timed(N * byte_size(Block), "B/s", fun() ->
        repeat(N, fun(_) -> ?SINK ! {block, Block} end),
        acknowledged(N * byte_size(Block))
    end);
run("N4", Variant, N) ->
    connect(),
    Main = self(),
    Ask = case Variant of
        "gen_server:call" -> fun(Number) -> gen_server:call(?SINK, {add, Number}) end;
        "bare" -> fun(Number) -> ?SINK ! {add, Number, self()}, receive Sum -> Sum end end
    end,
    Share = max(1, N div ?CALLERS),
    Caller = fun() ->
        await(go),
        repeat(Share, fun(Number) -> Sum = Number + 1, Sum = Ask(Number) end),
        Main ! done
    end,
    Callers = [spawn(Caller) || _ <- lists:seq(1, ?CALLERS)],
    timed(Share * ?CALLERS, "requests/s", fun() ->
        lists:foreach(fun(Process) -> Process ! go end, Callers),
        lists:foreach(fun(_) -> await(done) end, Callers)
    end);
run("N6", _Variant, N) ->
    connect(),
    Share = max(1, N div ?PORTS),
    ?SINK ! {open, Share, self()},
    Processes = receive {opened, Found} -> Found end,
    timed(Share * ?PORTS, "messages/s", fun() ->
        repeat(Share, fun(Number) -> lists:foreach(fun(Process) -> Process ! Number end, Processes) end),
        lists:foreach(fun(_) -> await(full) end, Processes)
    end).

%% What the other node's process does with each message.
served({ping, From}) -> From ! pong;
served({tag, _Number, _Text}) -> count(1);
served({block, Block}) -> count(byte_size(Block));
served({finish, From}) -> From ! {ack, erase(count)};
served({add, Number, From}) -> From ! Number + 1;
served({open, Share, From}) -> From ! {opened, [server(counter(Share, From)) || _ <- lists:seq(1, ?PORTS)]};
served(connect) -> ok.

counter(Share, From) ->
    fun(_Number) -> case count(1) of Share -> From ! full; _ -> ok end end.

count(More) ->
    Count = case get(count) of undefined -> More; Before -> Before + More end,
    put(count, Count),
    Count.

acknowledged(Expected) ->
    ?SINK ! {finish, self()},
    receive {ack, Expected} -> ok end.

connect() -> true = net_kernel:connect_node(element(2, ?SINK)).

%% --- what all rows use ---

shoot() ->
    Mortal = spawn(fun() -> receive stop -> ok end end),
    monitor(process, Mortal),
    exit(Mortal, shot).

await_death() -> receive {'DOWN', _, process, _, shot} -> ok end.
await(Message) -> receive Message -> ok end.

repeat(0, _Function) -> ok;
repeat(N, Function) -> Function(N), repeat(N - 1, Function).

now_ns() -> erlang:monotonic_time(nanosecond).
seconds_since(Started) -> (now_ns() - Started) / 1.0e9.

timed(Count, Unit, Work) ->
    erlang:garbage_collect(),
    Started = now_ns(),
    Work(),
    json(Count, Unit, seconds_since(Started), "").

json(Count, Unit, Seconds, More) ->
    io_lib:format("{\"rate\": ~.3f, \"unit\": \"~s\", \"seconds\": ~.6f, \"count\": ~b~s}",
                  [Count / Seconds, Unit, Seconds, Count, More]).
