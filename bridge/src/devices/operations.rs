//! What the OpenAPI document says of devices.

use holdfast_http::{Kind, Operation};
use holdfast_wire::presence::{Device, DeviceRequest};
use schemars::SchemaGenerator;

use super::list::Devices;

pub(crate) fn operations(schemas: &mut SchemaGenerator) -> [Operation; 4] {
    const ALL: &str = "/v1/devices";
    const ONE: &str = "/v1/devices/{client_id}";
    let store = [Kind::Invalid, Kind::StoreAway, Kind::StoreUnreadable];
    let about_one = "A bridge answers what the session store knows, a gateway also for a connection of its own what only it knows. A session that has \
        ended is not there.";
    let about_end = "The client hears \"administrative action\" (MQTT 5: 0x98); its session stays. A bridge tells the gateway that holds the connection; a \
        gateway ends only connections of its own.";
    let about_all = "In no particular order. One that is there all the while is on one page; one that comes or goes meanwhile may be. A page costs one \
        question to the store, however many sessions there are. Those that `connected` leaves out count against `limit`, and the store looks for those of a \
        `node` for a bounded time: so a page may have few devices, or none, and only `next` says whether it is the last. Of bridges, and of `dev`.";
    let about_body = "`{\"find\": client id}` is `GET /v1/devices/{client_id}`, and `{\"disconnect\": client id}` is `DELETE`: for a client id that is too long for an \
        address, which has room for 65,534 bytes, escapes included.";
    let list = Operation::new("get", ALL, "listDevices", "List sessions", about_all)
        .query::<u32>(schemas, "limit", "Sessions that the page may have, 1 to 1000; 100 if not given.")
        .query::<String>(schemas, "page", "The former answer's `next`.")
        .query::<String>(
            schemas,
            "node",
            "Only those that are connected to this node: 16 hexadecimal digits.",
        )
        .query::<bool>(schemas, "connected", "Only those that are connected, or only those that rest.")
        .answers::<Devices>(schemas, 200, "a page")
        .problems(schemas, &store);
    let show = Operation::new("get", ONE, "findDevice", "Find a device", about_one)
        .answers::<Device>(schemas, 200, "its session")
        .problems(schemas, &[&store[..], &[Kind::NotFound]].concat());
    let end = Operation::new("delete", ONE, "disconnectDevice", "End a device's connection", about_end)
        .answers_nothing(202, "the gateway was told")
        .answers_nothing(204, "it is ended")
        .problems(schemas, &[&store[..], &[Kind::NotFound, Kind::Busy]].concat());
    let by_body =
        Operation::new("post", ALL, "askForDevice", "Find a device, or end its connection", about_body)
            .takes::<DeviceRequest>(schemas, "application/json")
            .answers::<Device>(schemas, 200, "`find`: its session")
            .answers_nothing(202, "`disconnect`: the gateway was told")
            .answers_nothing(204, "`disconnect`: it is ended")
            .problems(
                schemas,
                &[&store[..], &[Kind::NotFound, Kind::TooLarge, Kind::UnsupportedMediaType, Kind::Busy]]
                    .concat(),
            );
    [list, by_body, show, end]
}
