//! Members: what a client asks first.

use base::{ClusterId, StoreId};
use pontoon_placement::{Member, Members, cluster_info};

fn member(store: u64) -> Member {
    let url = format!("http://10.0.0.{store}:2379");
    Member {
        store: StoreId(store),
        name: format!("pontoon-{store}"),
        client_url: url.clone(),
        peer_url: url,
        version: "8.5.0".to_owned(),
    }
}

#[test]
fn the_leader_is_one_of_the_members_with_urls_and_an_id() {
    let members = Members {
        cluster_id: ClusterId(5),
        members: vec![member(1), member(4)],
        leader: Some(StoreId(4)),
    };
    let response = members.get_members();
    assert_eq!(response.header.unwrap().cluster_id, 5);
    let leader = response.leader.unwrap();
    assert_eq!(
        (leader.member_id, &leader.client_urls[..]),
        (4, &["http://10.0.0.4:2379".into()][..])
    );
    assert_eq!(response.etcd_leader, Some(leader));
    let ids: Vec<_> = response.members.iter().map(|member| member.member_id).collect();
    assert_eq!(ids, [1, 4]);
}

#[test]
fn a_node_that_knows_no_leader_names_none() {
    let members = Members { cluster_id: ClusterId(5), members: vec![member(1)], leader: None };
    assert_eq!(members.get_members().leader, None);
}

#[test]
fn there_is_one_mode_of_service_and_no_other_place_for_timestamps() {
    let info = cluster_info(ClusterId(5));
    assert_eq!(info.service_modes, [1]);
    assert!(info.tso_urls.is_empty());
    assert!(info.header.unwrap().error.is_none());
}
